"""How well rows are reconstructed.

Legend:  A (n, d) activations   A_hat = Z D (n, d)   Z (n, k) codes
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from seminmf_lightning.metrics.base import SummedMetric
from seminmf_lightning.metrics.variation import merged, none_seen, of_rows, variation

MEANINGS = {
    "reconstruction_loss": "mean squared error, data units",
    "objective": "loss as minimised, normalised",
    "r2": "share of variance explained",
    "l0": "mean nonzero codes a row",
    "dead_fraction": "concepts no row uses",
    "optimality_gap": "training loss / lower bound - 1",
    "rows_seen": "training rows, with repeats",
    "seconds": "wall time",
}
"""The keys of a run's ``metrics.json``: of held-out rows, of the training rows where none are held out."""


def described(figures: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, value as people read it, and meaning of each figure."""
    for name, value in figures.items():
        yield name, _shown(value), MEANINGS.get(name, "")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return (
        f"{value:.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    )


def defined(value: Any) -> Any:
    """None in place of NaN and Inf, which JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


class ReconstructionMetrics(SummedMetric):
    """The five figures of a run.

    - ``reconstruction_loss``: ``||A - A_hat||_F^2 / (n d)``, mean squared error an element, in squared units
      of A; :func:`in_data_units` undoes the normaliser.
    - ``objective``: ``(1/n) sum_i 1/2 ||a_i - z_i D||^2 + l1_penalty ||z_i||_1``, in normalised units as
      minimised.
    - ``r2``: ``1 - ||A - A_hat||_F^2 / sum_j sum_i (a_ij - mean_j)^2``, the mean of each feature over the
      same rows; predicting the feature means scores 0, however far from zero they are.  Of rows that do not
      vary: 1 if they are reconstructed, else 0.
    - ``l0``: mean number of codes that are not zero, a count a row.
    - ``dead_fraction``: share of concepts whose code is exactly zero in every row.

    All are NaN of no rows.
    """

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
        """Add rows, in normalised units where the objective is to be as minimised."""
        self.squared_error += (A - A_hat).double().square().sum()
        self.spread = merged(torch.stack([self.spread, of_rows(A)]))
        self.l1_norm += Z.abs().sum(dtype=torch.float64)
        used = Z != 0
        self.nonzeros += used.sum()
        self.fired += used.sum(dim=0)
        self.rows += A.shape[0]

    def compute(self) -> dict[str, float]:
        """The figures, in the units of the rows added."""
        rows, error = float(self.rows), float(self.squared_error)
        if not rows:
            return dict.fromkeys(("reconstruction_loss", "objective", "r2", "l0", "dead_fraction"), math.nan)
        features, (total, squares) = len(self.spread) - 2, variation(self.spread)
        return {
            "reconstruction_loss": error / (rows * features),
            "objective": float(0.5 * self.squared_error + self.l1_penalty * self.l1_norm) / rows,
            "r2": float(error <= 1e-12 * squares) if total == 0 else 1 - error / total,
            "l0": float(self.nonzeros) / rows,
            "dead_fraction": float((self.fired == 0).double().mean()),
        }


def in_data_units(figures: Mapping[str, float], scale: float) -> dict[str, float]:
    """Figures of normalised rows, the reconstruction loss in squared data units: it is multiplied by
    ``scale^2``."""
    return {**figures, "reconstruction_loss": figures["reconstruction_loss"] * scale * scale}


class RelativeError(SummedMetric):
    """``relative_l2``: ``||A - A_hat||_F / ||A||_F``, no unit, of rows in data units (a mean that was taken
    off is in A).

    0 is exact, 1 is as good as predicting zeros.  Where every row is zero: NaN if they are reconstructed,
    else infinite.
    """

    squared_error: Tensor
    squares: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sums(squared_error=(), squares=())

    def update(self, A: Tensor, A_hat: Tensor) -> None:
        """Add rows and their reconstructions, both in data units."""
        A = A.double()
        self.squared_error += (A - A_hat).square().sum()
        self.squares += A.square().sum()

    def compute(self) -> dict[str, float]:
        return {"relative_l2": float((self.squared_error / self.squares).sqrt())}
