"""How far a dictionary is from the best possible one for the rows.

Legend:  A (n, d) activations   D (k, d) dictionary   C = A^T A (d, d)
"""

from __future__ import annotations

import math

from torch import Tensor

from seminmf_lightning.core.linalg import row_space
from seminmf_lightning.core.objective import eckart_young_bound, optimality_gap, squared_error
from seminmf_lightning.core.sums import AFFORDABLE_FEATURES
from seminmf_lightning.metrics.base import DictionaryMetric, Fitted, Value


class OptimalityGap(DictionaryMetric):
    """``optimality_gap``: ``min_Z ||A - Z D||_F^2 / bound - 1`` on the rows added, no unit.

    The bound is the truncated-SVD error of the same rows, normalised as D's training rows were (Eckart &
    Young, 1936): no dictionary of k atoms goes below it.  Both come from C alone, in float64; memory is d^2
    numbers.  NaN where codes are not least squares (a penalty, or a sparse encoder) or d is above
    :data:`~seminmf_lightning.core.sums.AFFORDABLE_FEATURES`.
    """

    values = (Value("optimality_gap", "loss / lower bound - 1, these rows"),)
    D: Tensor
    gram: Tensor

    def __init__(self, fitted: Fitted) -> None:
        super().__init__(fitted)
        features = fitted.D.shape[1]
        self.normalizer = fitted.normalizer
        self.defined = fitted.least_squares and features <= AFFORDABLE_FEATURES
        self.add_sums(gram=(features, features) if self.defined else ())
        self.register_buffer("D", fitted.D.double())

    def update(self, A: Tensor) -> None:
        if self.defined:
            A = self.normalizer.apply(A.double())
            self.gram += A.T @ A

    def compute(self) -> dict[str, float]:
        if not self.defined:
            return {"optimality_gap": math.nan}
        error, bound = squared_error(self.gram, row_space(self.D)), eckart_young_bound(self.gram, len(self.D))
        return {"optimality_gap": optimality_gap(float(error), float(bound), float(self.gram.trace()))}
