"""Figures of a reconstruction, summed over batches and processes.

Legend:  A (n, d) activations   A_hat = Z D (n, d)   Z (n, k) codes
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

MEANINGS = {
    "reconstruction_loss": "held-out mean squared error, data units",
    "objective": "held-out loss as minimised, normalised",
    "r2": "held-out share of variance explained",
    "l0": "held-out mean nonzero codes a row",
    "dead_fraction": "concepts no held-out row uses",
    "optimality_gap": "training loss / lower bound - 1",
    "rows_seen": "training rows, with repeats",
    "seconds": "wall time",
}
"""The keys of a run's ``metrics.json``."""


def described(figures: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, value as people read it, and meaning of each figure."""
    for name, value in figures.items():
        yield name, _shown(value), MEANINGS.get(name, "")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


class ReconstructionMetrics(Metric):
    """The five figures of a run.  Sums are float64, so that the split into batches and processes does not show.

    - ``reconstruction_loss``: ``||A - A_hat||_F^2 / (n d)``, mean squared error an element, times ``scale^2``: data units.
    - ``objective``: ``(1/n) sum_i 1/2 ||a_i - z_i D||^2 + l1_penalty ||z_i||_1``, in normalised units as minimised.
    - ``r2``: ``1 - ||A - A_hat||_F^2 / sum_j sum_i (a_ij - mean_j)^2``, the mean of each feature over the same rows;
      predicting the feature means scores 0.
    - ``l0``: mean number of codes that are not zero, a count a row.
    - ``dead_fraction``: share of concepts whose code is exactly zero in every row.
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False

    squared_error: Tensor
    column_sum: Tensor
    squares: Tensor
    l1_norm: Tensor
    nonzeros: Tensor
    fired: Tensor
    rows: Tensor

    def __init__(self, concepts: int, features: int, l1_penalty: float) -> None:
        super().__init__()
        self.l1_penalty = l1_penalty
        shapes = {"column_sum": (features,), "fired": (concepts,)}
        for name in ("squared_error", "column_sum", "squares", "l1_norm", "nonzeros", "fired", "rows"):
            zeros = torch.zeros(shapes.get(name, ()), dtype=torch.float64)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")

    def update(self, A: Tensor, A_hat: Tensor, Z: Tensor) -> None:
        """Add rows in normalised units."""
        self.squared_error += (A - A_hat).square().sum(dtype=torch.float64)
        self.column_sum += A.sum(dim=0, dtype=torch.float64)
        self.squares += A.double().square().sum()
        self.l1_norm += Z.abs().sum(dtype=torch.float64)
        used = Z != 0
        self.nonzeros += used.sum()
        self.fired += used.sum(dim=0)
        self.rows += A.shape[0]

    def compute(self) -> dict[str, float]:
        """The figures, with the reconstruction loss still in normalised units."""
        rows = self.rows.clamp(min=1)
        total = float(self.squares - self.column_sum.square().sum() / rows)
        error = float(self.squared_error)
        exact = error <= 1e-12 * float(self.squares)
        r2 = 1 - error / total if total > 1e-12 * float(self.squares) else float(exact)
        return {
            "reconstruction_loss": error / float(rows * self.column_sum.numel()),
            "objective": float((0.5 * self.squared_error + self.l1_penalty * self.l1_norm) / rows),
            "r2": r2,
            "l0": float(self.nonzeros / rows),
            "dead_fraction": float((self.fired == 0).double().mean()),
        }
