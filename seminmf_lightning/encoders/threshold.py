"""Threshold codes: lasso with twice the nonzeros, the largest kept, least squares on those.

1. Lasso, ``min_z 1/2 ||a - z U||^2 + penalty ||z||_1``, at the penalty below which the row has more than
   ``2 nonzeros`` nonzeros: a point of its lasso path (Efron et al., 2004), found from the row alone.
2. The ``nonzeros`` largest ``|z_j|`` are the support.  As U are atoms of length 1, lengths do not matter.
3. ``min_z ||a - z D||`` on the support, over ``z >= 0`` if codes are nonnegative (Lawson & Hanson, 1974);
   its Karush-Kuhn-Tucker conditions certify the codes.

A variant of the thresholded lasso of Meinshausen & Yu, "Lasso-type recovery of sparse representations for
high-dimensional data", Ann. Statist. 37(1), 2009, which keeps a number of codes in place of those above a
threshold.  Lasso looks at all atoms at once, matching pursuit at one after the other; the refit removes the
shrinkage of lasso.

Legend:  A (n, d)   Z (n, k)   D (k, d)   U = unit atoms (k, d)   Q = A U^T (n, k)   G = U U^T (k, k)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.core.objective import refit_residual
from seminmf_lightning.encoders import numba_kernels, numba_threshold
from seminmf_lightning.encoders.active_set import gram, rounded_gram, solve_on_support
from seminmf_lightning.encoders.base import Effort, Encode, FixedNonzeros
from seminmf_lightning.encoders.feature_sign import feature_sign
from seminmf_lightning.encoders.homotopy import lasso_path
from seminmf_lightning.encoders.numba_threshold import ROUNDING

OVERSAMPLING = 2
"""Nonzeros of the lasso per nonzero that is kept."""
ROUNDS = 3
"""Batched refits, each without the codes that the previous one made negative."""
STEPS_PER_ATOM = 4
"""Most steps of the exact refit per atom of the support."""
NUMBERS_AT_ONCE = 2**20
"""Correlations held at a time; a GPU takes GPU_FACTOR times as many."""
GPU_FACTOR = 16

Select = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
"""``A -> (codes Z of unit atoms, their support (n, nonzeros), -1 where there are fewer, residual (n,))``."""


@dataclass(frozen=True, kw_only=True)
class Threshold(FixedNonzeros):
    """The ``nonzeros`` largest lasso codes of twice as many, refitted by least squares.

    Fewer where fewer fit the row exactly, or, with nonnegative codes, where least squares makes some zero.

    >>> D = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    >>> Threshold(nonzeros=1).precise(D)(torch.tensor([[-3.0, 0.5]]))
    tensor([[-3.,  0.]])
    """

    def precise(self, D: Tensor, effort: Effort = ()) -> Encode:
        self.check(*D.shape)
        unit = unit_atoms(D.double())
        norms = D.double().norm(dim=1)
        inverse_norms = torch.where(norms > 0, 1 / norms, 0.0)
        select: Select = (self._compiled if numba_kernels.usable(D) else self._batched)(unit)
        size = max(16, NUMBERS_AT_ONCE * (GPU_FACTOR if D.is_cuda else 1) // len(D))

        def encode(A: Tensor) -> Tensor:
            U = unit.to(A.device)
            blocks = [self._certified(rows, *select(rows), U) for rows in A.split(size) if len(rows)]
            return torch.cat([A.new_zeros(0, len(D)), *blocks]).mul_(inverse_norms.to(A))

        return encode

    def _longest(self, U: Tensor) -> int:
        concepts, features = U.shape
        return min(OVERSAMPLING * self.nonzeros, concepts, features)

    def _compiled(self, U: Tensor) -> Select:
        """Return the selection and refit row by row."""
        grams: dict[torch.dtype, Tensor] = {}

        def select(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            if A.dtype not in grams:
                grams[A.dtype] = rounded_gram(U, A.dtype)
            # In float64: float32 products over d depend on the shape of the batch, and codes must not.
            return numba_threshold.threshold(
                (A.double() @ U.T).to(A), grams[A.dtype], A.norm(dim=1), self._longest(U), self.nonzeros,
                nonnegative=self.nonnegative,
            )  # fmt: skip

        return select

    def _batched(self, U: Tensor) -> Select:
        """Return the same for all rows at once."""
        G = gram(U)

        def select(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            Q = A.double() @ U.T
            atoms, codes = lasso_path(
                Q, U, G, _rounding(A), self._longest(U), dependent=numba_kernels.DEPENDENT[A.dtype],
                nonnegative=self.nonnegative,
            )  # fmt: skip
            largest, order = codes.abs().topk(self.nonzeros, dim=1)
            atoms = atoms.gather(1, order)
            start = torch.zeros_like(Q).scatter_add_(1, atoms, codes.gather(1, order))
            Z = solve_on_support(start, Q, U, G, 0.0, ROUNDS, keep_signs=self.nonnegative)
            # Once more for what is left, because the systems have a ridge.
            Z += solve_on_support(Z, Q - (Z @ U) @ U.T, U, G, 0.0, keep_signs=False)
            Z = Z.clamp(min=0) if self.nonnegative else Z
            E = U[atoms] * (largest > 0)[:, :, None]
            residual = refit_residual(A.double(), Z.gather(1, atoms), E, nonnegative=self.nonnegative)
            return Z.to(A), torch.where(largest > 0, atoms, -1), residual

        return select

    def _certified(self, A: Tensor, Z: Tensor, support: Tensor, residual: Tensor, U: Tensor) -> Tensor:
        """Return the codes, solved again in float64 where their residual is more than rounding."""
        rest = (~(residual <= ROUNDING * torch.finfo(A.dtype).eps)).nonzero()[:, 0]
        if len(rest):
            Z[rest] = self._exact(A[rest].double(), support[rest], U).to(Z)
        return Z

    def _exact(self, A: Tensor, support: Tensor, U: Tensor) -> Tensor:
        """Return the codes on the support by the pseudoinverse, slowly; all in float64."""
        live, atoms = support >= 0, support.clamp(min=0)
        Z = A.new_zeros(len(A), len(U))
        if self.nonnegative:
            Q = torch.where(Z.scatter_add(1, atoms, live.to(Z)) > 0, A @ U.T, -torch.inf)  # no other enters
            steps = STEPS_PER_ATOM * atoms.shape[1]
            Z = feature_sign(Z, Q, U, None, 0.0, steps, nonnegative=True, slack=_rounding(A))
            live = live & (Z.gather(1, atoms) > 0)
        codes = (A[:, None] @ torch.linalg.pinv(U[atoms] * live[:, :, None]))[:, 0] * live
        return torch.zeros_like(Z).scatter_add_(1, atoms, codes.clamp(min=0) if self.nonnegative else codes)


def _rounding(A: Tensor) -> Tensor:
    """Return the penalty of each row (n,) that is rounding."""
    norms: Tensor = A.norm(dim=1)
    return norms * (ROUNDING * torch.finfo(A.dtype).eps)
