"""Histogram of how often concepts are used."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seminmf_lightning.explain.charts.base import Chart, Plot, Series
from seminmf_lightning.explain.gather import Summary

BINS = 40
LEAST = 1e-7
"""Concepts that no row uses are drawn at this share of rows."""


class DensityChart(Chart):
    """Histogram of the concepts' densities, the share of rows with a nonzero code."""

    def plot(self, summary: Summary, run: Path) -> Plot | None:
        counts, edges = np.histogram(np.log10(np.maximum(summary.sums.density.numpy(), LEAST)), bins=BINS)
        bars = Series("concepts", (10**edges).tolist(), counts.tolist(), "bars")
        return Plot("How often concepts are used", "share of rows", "concepts", [bars], log_x=True)
