"""How well rows are reconstructed.

Legend:  A (n, d) activations   A_hat = Z D (n, d)   Z (n, k) codes
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from seminmf_lightning.metrics.base import SummedMetric, Value
from seminmf_lightning.metrics.variation import merged, none_seen, of_rows, variation


class ReconstructionMetrics(SummedMetric):
    """The five metrics of a run.

    - ``reconstruction_loss``: ``||A - A_hat||_F^2 / (n d)``, mean squared error per element, in squared units
      of A; :func:`in_data_units` undoes the normaliser.
    - ``objective``: ``(1/n) sum_i 1/2 ||a_i - z_i D||^2 + l1_penalty ||z_i||_1``, in normalised units as
      minimised.
    - ``r2``: ``1 - ||A - A_hat||_F^2 / sum_j sum_i (a_ij - mean_j)^2``, the mean of each feature over the
      same rows; predicting the feature means scores 0, however far from zero they are.  Rows that do not
      vary score 1 if they are reconstructed, else 0.
    - ``l0``: mean number of codes that are not zero, a count per row.
    - ``dead_fraction``: share of concepts whose code is exactly zero in every row.

    All are NaN without rows.
    """

    values = (
        Value("reconstruction_loss", "mean squared error, data units"),
        Value("objective", "loss as minimised, normalised"),
        Value("r2", "share of variance explained"),
        Value("l0", "mean nonzero codes per row"),
        Value("dead_fraction", "concepts no row uses"),
    )
    squared_error: Tensor
    spread: Tensor
    l1_norm: Tensor
    nonzeros: Tensor
    fired: Tensor
    rows: Tensor

    def __init__(self, concepts: int, features: int, l1_penalty: float) -> None:
        super().__init__()
        self.l1_penalty = l1_penalty
        self.add_sums(squared_error=(), l1_norm=(), nonzeros=(), fired=(concepts,), rows=())
        self.add_state("spread", default=none_seen(features), dist_reduce_fx=merged)

    def update(self, A: Tensor, A_hat: Tensor, Z: Tensor) -> None:
        """Add rows; in normalised units ``objective`` is the quantity that training minimises."""
        self.squared_error += (A - A_hat).double().square().sum()
        self.spread = merged(torch.stack([self.spread, of_rows(A)]))
        self.l1_norm += Z.abs().sum(dtype=torch.float64)
        used = Z != 0
        self.nonzeros += used.sum()
        self.fired += used.sum(dim=0)
        self.rows += A.shape[0]

    def compute(self) -> dict[str, float]:
        """Return the metrics in the units of the rows added."""
        rows, error = float(self.rows), float(self.squared_error)
        if not rows:
            return {value.name: math.nan for value in self.values}
        features, (total, squares) = len(self.spread) - 2, variation(self.spread)
        return {
            "reconstruction_loss": error / (rows * features),
            "objective": float(0.5 * self.squared_error + self.l1_penalty * self.l1_norm) / rows,
            "r2": float(error <= 1e-12 * squares) if total == 0 else 1 - error / total,
            "l0": float(self.nonzeros) / rows,
            "dead_fraction": float((self.fired == 0).double().mean()),
        }


def in_data_units(metrics: Mapping[str, float], scale: float) -> dict[str, float]:
    """Return metrics of normalised rows with the reconstruction loss in squared data units.

    >>> in_data_units({"reconstruction_loss": 0.5, "r2": 0.9}, scale=2.0)
    {'reconstruction_loss': 2.0, 'r2': 0.9}
    """
    return {**metrics, "reconstruction_loss": metrics["reconstruction_loss"] * scale * scale}
