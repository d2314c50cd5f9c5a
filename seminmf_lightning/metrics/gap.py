"""How far from the best possible dictionary for these rows.

Legend:  A (n, d) activations   D (k, d) dictionary   C = A^T A (d, d)
"""

from __future__ import annotations

from torch import Tensor

from seminmf_lightning.core.linalg import row_space
from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.core.objective import eckart_young_bound, optimality_gap, squared_error
from seminmf_lightning.metrics.base import SummedMetric


class OptimalityGap(SummedMetric):
    """``optimality_gap``: ``min_Z ||A - Z D||_F^2 / bound - 1`` on the rows added, no unit; a statement about
    l1_penalty = 0.

    The bound is the truncated-SVD error of the same rows, normalised as D's training rows were (Eckart &
    Young, 1936): no dictionary of k atoms goes below it.  Both come from C alone, in float64; memory is d^2
    numbers.

    Args:
        D: (k, d).
        normalizer: what rows in data units go through before they meet D.
    """

    D: Tensor
    gram: Tensor

    def __init__(self, D: Tensor, normalizer: Normalizer | None = None) -> None:
        super().__init__()
        self.register_buffer("D", D.detach().double())
        self.normalizer = normalizer or Normalizer()
        self.add_sums(gram=(D.shape[1], D.shape[1]))

    def update(self, A: Tensor) -> None:
        """Add rows in data units."""
        A = self.normalizer.apply(A.double())
        self.gram += A.T @ A

    def compute(self) -> dict[str, float]:
        error, bound = squared_error(self.gram, row_space(self.D)), eckart_young_bound(self.gram, len(self.D))
        return {"optimality_gap": optimality_gap(float(error), float(bound), float(self.gram.trace()))}
