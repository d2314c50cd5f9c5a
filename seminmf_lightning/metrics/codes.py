"""How codes are spread: over the concepts of a row, and over the rows of a concept.

Legend:  Z (n, k) codes   D (k, d) dictionary
"""

from __future__ import annotations

import math

from torch import Tensor

from seminmf_lightning.metrics.base import SummedMetric


class Hoyer(SummedMetric):
    """``hoyer``: mean over rows of ``(sqrt(k) - ||z||_1 / ||z||_2) / (sqrt(k) - 1)``, no unit.

    1 where a row has a single nonzero code, 0 where all its codes are of one size (Hoyer, "Non-negative
    matrix factorization with sparseness constraints", JMLR 5, 2004, section 3.1).  Not defined for rows
    without a nonzero code, which are left out, nor for k = 1: NaN.
    """

    sparsity: Tensor
    rows: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sums(sparsity=(), rows=())

    def update(self, Z: Tensor) -> None:
        """Add the codes of a batch."""
        Z = Z.double().abs()
        Z = Z[Z.amax(dim=1) > 0]
        # Through the largest code, because squares of very small ones are zero.
        Z = Z / Z.amax(dim=1, keepdim=True)
        root = math.sqrt(Z.shape[1])
        self.sparsity += ((root - Z.sum(dim=1) / Z.norm(dim=1)) / (root - 1 if root > 1 else math.nan)).sum()
        self.rows += len(Z)

    def compute(self) -> dict[str, float]:
        return {"hoyer": float(self.sparsity / self.rows)}


class ConceptUse(SummedMetric):
    """How much each concept is used: two lists of k shares.

    - ``density``: share of rows with ``|z_j| > 0``; signs cannot cancel.
    - ``energy``: ``e_j / sum_l e_l`` with ``e_j = ||D_j||_2^2 sum_i z_ij^2``, the squared Frobenius norm of
      concept j's own part ``z_j D_j`` of the reconstruction.  Parts overlap, so that ``sum_l e_l`` is not
      ``||Z D||_F^2`` unless atoms are orthogonal; neither the units of the data nor how a norm is split
      between z and D matters.  Sums to 1; all 0 where every part is.

    Args:
        D: (k, d).
    """

    squared_norms: Tensor
    fired: Tensor
    squares: Tensor
    rows: Tensor

    def __init__(self, D: Tensor) -> None:
        super().__init__()
        self.register_buffer("squared_norms", D.detach().double().square().sum(dim=1))
        self.add_sums(fired=(len(D),), squares=(len(D),), rows=())

    def update(self, Z: Tensor) -> None:
        """Add the codes of a batch."""
        self.fired += (Z != 0).sum(dim=0)
        self.squares += Z.double().square().sum(dim=0)
        self.rows += len(Z)

    def compute(self) -> dict[str, list[float]]:
        energy = self.squares * self.squared_norms
        total = energy.sum()
        return {
            "density": (self.fired / self.rows.clamp(min=1)).tolist(),
            "energy": (energy / total if total > 0 else energy).tolist(),
        }
