"""What every chart of the report must do; a new chart is found by its file and tested without an edit."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from seminmf_lightning.core.discovery import available
from seminmf_lightning.explain.charts import Chart
from seminmf_lightning.explain.gather import Summary

CHARTS = available(Chart)
D = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
CODES = {
    "random": torch.randn(40, 3, generator=torch.Generator().manual_seed(1)),
    "all zero": torch.zeros(40, 3),
    "one row": torch.tensor([[1.0, 0.0, -2.0]]),
    "one concept": torch.ones(7, 1),
}


def summary_of(Z: torch.Tensor) -> Summary:
    summary = Summary.empty(D[: Z.shape[1]], len(Z), examples=2)
    summary.update(Z @ D[: Z.shape[1]], Z, torch.arange(len(Z)), torch.arange(len(Z)))
    return summary


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with loss curves, one of them not finite."""
    writer = SummaryWriter(tmp_path / "run" / "tensorboard")
    for step, loss in enumerate((2.0, 1.0, float("nan"), 0.0)):
        writer.add_scalar("train/reconstruction_loss", loss, step)
    writer.close()
    return tmp_path / "run"


def test_charts_are_found_by_file() -> None:
    assert {"density", "loss", "spectrum"} <= set(CHARTS)


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_gives_a_plot_that_can_be_drawn(name: str, codes: str, run: Path) -> None:
    plot = CHARTS[name]().plot(summary_of(CODES[codes]), run)
    if plot is None:
        assert codes == "all zero"  # rows of zeros have no spectrum
        return
    json.dumps(asdict(plot), allow_nan=False)
    assert plot.title and plot.x_label and plot.y_label and plot.series
    for series in plot.series:
        assert len(series.x) == len(series.y) + (series.kind == "bars") > 0
        assert not plot.log_x or min(series.x) > 0
        assert not plot.log_y or min(series.y) > 0


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_needs_no_run_directory(name: str, tmp_path: Path) -> None:
    plot = CHARTS[name]().plot(summary_of(CODES["random"]), tmp_path)
    assert plot is None or plot.series


def test_a_dictionary_file_without_a_run_has_no_curves(tmp_path: Path) -> None:
    assert CHARTS["loss"]().plot(summary_of(CODES["random"]), tmp_path) is None


def test_bars_count_every_concept(tmp_path: Path) -> None:
    plot = CHARTS["density"]().plot(summary_of(CODES["random"]), tmp_path)
    assert plot is not None and sum(plot.series[0].y) == 3


def test_the_bound_is_reached_by_an_exact_dictionary(tmp_path: Path) -> None:
    plot = CHARTS["spectrum"]().plot(summary_of(CODES["random"]), tmp_path)
    assert plot is not None
    bound, ours = plot.series
    assert bound.y[2] == pytest.approx(0, abs=1e-6) and ours.x == [3]  # rows of rank 3
    assert ours.y[0] == pytest.approx(0, abs=1e-6)
    assert bound.y == sorted(bound.y, reverse=True)
