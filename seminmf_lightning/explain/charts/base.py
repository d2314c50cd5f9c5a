"""The interface of a chart.  A new chart is one file in this folder with a subclass of :class:`Chart`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seminmf_lightning.explain.gather import Summary


@dataclass(frozen=True)
class Series:
    """Points (x_i, y_i) under one name; for ``bars`` x holds the n + 1 edges of n bars of height y."""

    name: str
    x: list[float]
    y: list[float]
    kind: Literal["line", "points", "bars"] = "line"


@dataclass(frozen=True)
class Plot:
    """Axes and series for the page to draw; numbers are finite, and above 0 on a logarithmic axis."""

    title: str
    x_label: str
    y_label: str
    series: list[Series]
    log_x: bool = False
    log_y: bool = False


class Chart(ABC):
    """One chart of the report."""

    @abstractmethod
    def plot(self, summary: Summary, run: Path) -> Plot | None:
        """Return the plot for the rows in ``summary`` and the run directory; None if there is nothing to
        show."""
