"""How much each concept is used.

Legend:  Z (n, k) codes   D (k, d) dictionary
"""

from __future__ import annotations

from torch import Tensor

from seminmf_lightning.metrics.base import DictionaryMetric, Fitted, Value


class ConceptUse(DictionaryMetric):
    """Two lists of k shares.

    - ``density``: share of rows with ``|z_j| > 0``; signs cannot cancel.
    - ``energy``: ``e_j / sum_l e_l`` with ``e_j = ||D_j||_2^2 sum_i z_ij^2``, the squared Frobenius norm of
      the part ``z_j D_j`` of the reconstruction.  Parts overlap: ``sum_l e_l`` is not ``||Z D||_F^2`` unless
      atoms are orthogonal.  It depends neither on the data's unit nor on how a norm is split between z and D.
    """

    values = (
        Value("density", "share of rows that use the concept", per_concept=True),
        Value("energy", "share of the energy of the reconstruction", per_concept=True),
    )
    squared_norms: Tensor
    fired: Tensor
    squares: Tensor
    rows: Tensor

    def __init__(self, fitted: Fitted) -> None:
        super().__init__(fitted)
        self.add_sums(fired=(len(fitted.D),), squares=(len(fitted.D),), rows=())
        self.register_buffer("squared_norms", fitted.D.double().square().sum(dim=1))

    def update(self, Z: Tensor) -> None:
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
