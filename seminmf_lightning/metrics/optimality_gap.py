"""How far a dictionary is from the best possible one for the rows.

Legend:  A (n, d) activations   D (k, d) dictionary   C = A^T A (d, d)
"""

from __future__ import annotations

import math

from torch import Tensor

from seminmf_lightning.core.linalg import row_space
from seminmf_lightning.core.objective import ROUNDING, eckart_young_bound, optimality_gap, squared_error
from seminmf_lightning.core.sums import AFFORDABLE_FEATURES
from seminmf_lightning.metrics.base import DictionaryMetric, Fitted, Value


class OptimalityGap(DictionaryMetric):
    """``optimality_gap``: ``min_Z ||A - Z D||_F^2 / bound - 1`` on the rows added, no unit.

    The bound is the truncated-SVD error of the same rows, normalised as D's training rows were (Eckart &
    Young, 1936): no dictionary of k atoms goes below it.  Both come from C alone, in float64; memory is d^2
    numbers.  NaN where the bound is lost in rounding (see
    :func:`~seminmf_lightning.core.objective.optimality_gap`), where codes are not least squares (a penalty or
    a sparse encoder), or where d is above :data:`~seminmf_lightning.core.sums.AFFORDABLE_FEATURES`.
    """

    values = (Value("optimality_gap", "loss / lower bound - 1, these rows"),)
    D: Tensor
    gram: Tensor
    total: Tensor
    rows: Tensor

    def __init__(self, fitted: Fitted) -> None:
        super().__init__(fitted)
        features = fitted.D.shape[1]
        self.normalizer = fitted.normalizer
        self.defined = fitted.least_squares and features <= AFFORDABLE_FEATURES
        self.add_sums(gram=(features, features) if self.defined else (), total=(features,), rows=())
        self.register_buffer("D", fitted.D.double())

    def update(self, A: Tensor) -> None:
        if self.defined:
            A = self.normalizer.apply(A.double())
            self.gram += A.T @ A
            self.total += A.sum(dim=0)
            self.rows += len(A)

    def compute(self) -> dict[str, float]:
        if not self.defined or not self.rows:
            return {"optimality_gap": math.nan}
        error, bound = squared_error(self.gram, row_space(self.D)), eckart_young_bound(self.gram, len(self.D))
        squares = float(self.gram.trace())
        spread = max(0.0, squares - float(self.total.square().sum() / self.rows))
        gap = optimality_gap(
            float(error),
            float(bound),
            ROUNDING * squares,
            spread,
            attainable_zero=len(self.D) >= self.D.shape[1],
        )
        return {"optimality_gap": math.nan if gap is None else gap}
