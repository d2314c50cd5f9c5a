"""The figures of a report, by plotly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

HEIGHT = 300
INK, SECOND = "#1f4e79", "#c0504d"


def curves(run: Path, tags: Sequence[str]) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values of scalars that a run logged to TensorBoard; empty where it logged none."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, tuple[list[int], list[float]]] = {}
    for file in sorted((run / "tensorboard").glob("**/events*")):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0})
        events.Reload()
        for tag in set(tags) & set(events.Tags()["scalars"]):
            steps, values = found.setdefault(tag, ([], []))
            for event in events.Scalars(tag):
                steps.append(event.step)
                values.append(event.value)
    return found


def loss_figure(found: dict[str, tuple[list[int], list[float]]]) -> Any:
    """Reconstruction loss against step."""
    figure = _figure("Reconstruction loss", "step", "MSE, data units")
    for tag, colour in (("train/reconstruction_loss", INK), ("val/reconstruction_loss", SECOND)):
        if tag in found:
            (steps, values), name = found[tag], tag.partition("/")[0]
            figure.add_scatter(x=steps, y=values, name=name, mode="lines+markers", line_color=colour)
    figure.update_yaxes(type="log")
    return figure


def density_figure(density: np.ndarray) -> Any:
    """Histogram of the concepts' densities (k,)."""
    figure = _figure("How often concepts fire", "share of rows, log10", "concepts")
    figure.add_histogram(
        x=np.log10(np.maximum(density, 1e-7)).tolist(), nbinsx=40, marker_color=INK, showlegend=False
    )
    return figure


def spectrum_figure(eigenvalues: np.ndarray, concepts: int, unexplained: float) -> Any:
    """Share of ``||A||_F^2`` (not zero) that r components leave, the Eckart-Young bound, and what the
    dictionary leaves."""
    left = 1 - np.cumsum(eigenvalues) / eigenvalues.sum()
    ranks = np.arange(1, len(left) + 1)
    figure = _figure("Against the Eckart-Young bound", "components", "share left")
    figure.add_scatter(
        x=ranks.tolist(), y=np.maximum(left, 0).tolist(), name="truncated SVD (lower bound)", line_color=INK
    )
    figure.add_scatter(
        x=[concepts],
        y=[unexplained],
        name="this dictionary",
        mode="markers",
        marker={"color": SECOND, "size": 11},
    )
    return figure


def as_html(figure: Any, *, with_library: bool) -> str:
    """A ``<div>``; the first one of a page carries the library."""
    return figure.to_html(
        full_html=False, include_plotlyjs=with_library, config={"displaylogo": False, "responsive": True}
    )


def _figure(title: str, x: str, y: str) -> Any:
    import plotly.graph_objects as plotly

    figure = plotly.Figure()
    figure.update_layout(
        title=title, height=HEIGHT, template="simple_white", margin={"l": 60, "r": 20, "t": 50, "b": 50},
        legend={"orientation": "h", "y": -0.3}, font={"family": "system-ui, sans-serif"},
    )  # fmt: skip
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y)
    return figure
