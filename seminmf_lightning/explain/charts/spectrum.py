"""Compare the error of the dictionary with the smallest possible for as many components."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from seminmf_lightning.explain.charts.base import Chart, Plot, Series
from seminmf_lightning.explain.gather import Summary
from seminmf_lightning.metrics.variation import variation


class SpectrumChart(Chart):
    """Share of ``||A||_F^2`` left by the best r components (Eckart-Young), and by this dictionary."""

    def plot(self, summary: Summary, run: Path) -> Plot | None:
        _, squares = variation(summary.metrics.spread)
        if summary.moment is None or not squares > 0:
            return None
        eigenvalues = torch.linalg.eigvalsh(summary.moment.gram.cpu()).flip(0).clamp(min=0).numpy()
        left = np.maximum(1 - np.cumsum(eigenvalues) / eigenvalues.sum(), 0)
        bound = Series("truncated SVD (lower bound)", list(range(1, len(left) + 1)), left.tolist())
        error = float(summary.metrics.squared_error) / squares
        ours = Series("this dictionary", [summary.D.shape[0]], [error], "points")
        return Plot("Against the Eckart-Young bound", "components", "share of squares left", [bound, ours])
