"""The reconstruction loss during training."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

from seminmf_lightning.explain.charts.base import Chart, Plot, Series
from seminmf_lightning.explain.gather import Summary

TAGS = {"train": "train/reconstruction_loss", "val": "val/reconstruction_loss"}


class LossChart(Chart):
    """Reconstruction loss against step, from the run's TensorBoard files."""

    def plot(self, summary: Summary, run: Path) -> Plot | None:
        curves = read_curves(run)
        series = [Series(name, *curves[tag]) for name, tag in TAGS.items() if curves[tag][0]]
        if not series:
            return None
        log_y = all(value > 0 for one in series for value in one.y)
        return Plot("Reconstruction loss", "step", "mean squared error, data units", series, log_y=log_y)


def read_curves(run: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Return steps and finite values of :data:`TAGS` that the run logged to TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves: dict[str, tuple[list[float], list[float]]] = {tag: ([], []) for tag in TAGS.values()}
    for file in sorted((run / "tensorboard").glob("**/events*")):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0})
        events.Reload()
        for tag in curves.keys() & set(events.Tags()["scalars"]):
            for event in events.Scalars(tag):
                if isfinite(event.value):
                    curves[tag][0].append(event.step)
                    curves[tag][1].append(event.value)
    return curves
