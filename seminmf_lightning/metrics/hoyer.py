"""How few concepts explain each row.

Legend:  Z (n, k) codes
"""

from __future__ import annotations

import math

from torch import Tensor

from seminmf_lightning.metrics.base import DictionaryMetric, Fitted, Value


class Hoyer(DictionaryMetric):
    """``hoyer``: mean over rows of ``(sqrt(k) - ||z||_1 / ||z||_2) / (sqrt(k) - 1)``, no unit.

    1 for a single nonzero code per row, 0 if all codes have the same size (Hoyer, "Non-negative matrix
    factorization with sparseness constraints", JMLR 5, 2004, section 3.1).  Rows without a nonzero code are
    left out; NaN if no row is left, or for k = 1.

    >>> import torch
    >>> metric = Hoyer(Fitted(D=torch.eye(4)))
    >>> metric.update(torch.tensor([[3.0, 0.0, 0.0, 0.0], [1.0, 1.0, -1.0, 1.0]]))
    >>> metric.compute()
    {'hoyer': 0.5}
    """

    values = (Value("hoyer", "sparsity of each row's codes, 0 to 1"),)
    sparsity: Tensor
    rows: Tensor

    def __init__(self, fitted: Fitted) -> None:
        super().__init__(fitted)
        self.add_sums(sparsity=(), rows=())

    def update(self, Z: Tensor) -> None:
        Z = Z.double().abs()
        Z = Z[Z.amax(dim=1) > 0]
        # Scaled by the largest code, because squares of very small ones are zero.
        Z = Z / Z.amax(dim=1, keepdim=True)
        root = math.sqrt(Z.shape[1])
        self.sparsity += ((root - Z.sum(dim=1) / Z.norm(dim=1)) / (root - 1 if root > 1 else math.nan)).sum()
        self.rows += len(Z)

    def compute(self) -> dict[str, float]:
        return {"hoyer": float(self.sparsity / self.rows)}
