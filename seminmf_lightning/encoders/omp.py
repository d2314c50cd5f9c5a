"""Orthogonal matching pursuit with a fixed number of nonzeros, for a whole batch.

Each step picks an atom for every row and orthonormalises it against those picked before; the codes are the
least-squares ones on the picked atoms.  With r the residual and v_j the squared distance of the unit atom u_j
from the span of those picked, the pick is the largest

- ``selection=error``:  ``<r, u_j>^2 / v_j``, by which the squared error falls.  Order-recursive matching
  pursuit, or orthogonal least squares: Chen, Billings & Luo, Int. J. Control 50(5), 1989; Rebollo-Neira &
  Lowe, IEEE Signal Process. Lett. 9(4), 2002.
- ``selection=correlation``:  ``|<r, u_j>|``.  Pati, Rezaiifar & Krishnaprasad, 1993.

Both from correlations alone, as in Rubinstein, Zibulevsky & Elad, "Efficient implementation of the K-SVD
algorithm using batch orthogonal matching pursuit", 2008, and at the same cost.

Nonnegative codes: Bruckstein, Elad & Zibulevsky, "On the uniqueness of nonnegative sparse solutions to
underdetermined systems of equations", IEEE Trans. Inf. Theory 54(11), 2008: only atoms of positive
correlation are picked, and those whose least-squares code would fall below 0 are dropped.

Legend:  A (n, d)   Z (n, k)   D (k, d)   U = unit atoms (k, d)   Q = A U^T (n, k)
         C (n, k) correlations of the residuals, over ||a||   V (n, k) squared distances v
         B (n, s, k) correlations of the s orthonormal directions of each row with all atoms
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from seminmf_lightning.core.checks import one_of
from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.encoders import numba_kernels, numba_pursuit
from seminmf_lightning.encoders.active_set import gram, rounded_gram, solve_atoms
from seminmf_lightning.encoders.base import Effort, Encode, FixedNonzeros
from seminmf_lightning.encoders.feature_sign import feature_sign
from seminmf_lightning.encoders.numba_pursuit import ROUNDING, TRIES_PER_ATOM

NUMBERS_AT_ONCE = 2**21
"""Numbers of B held at a time, which fit the processor's cache; a GPU takes GPU_FACTOR times as many."""
GPU_FACTOR = 64
SELECTIONS = ("error", "correlation")


@dataclass(frozen=True, kw_only=True)
class OMP(FixedNonzeros):
    """``min_z ||a - z D||`` with at most ``nonzeros`` codes, chosen greedily; fewer if they fit exactly.

    >>> D = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    >>> OMP(nonzeros=1).precise(D)(torch.tensor([[-3.0, 0.5]]))
    tensor([[-3.,  0.]])
    """

    selection: str = "error"
    """Which atom is picked: the one that lowers the ``error`` most, or that of largest ``correlation``."""

    formerly: ClassVar[Mapping[str, Any]] = {"selection": "correlation"}

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("encoder.selection", self.selection, SELECTIONS)

    def precise(self, D: Tensor, effort: Effort = ()) -> Encode:
        self.check(*D.shape)
        unit = unit_atoms(D.double())
        norms = D.double().norm(dim=1)
        inverse_norms = torch.where(norms > 0, 1 / norms, 0.0)
        if numba_kernels.usable(D):
            pursue = self._compiled(unit)
        else:
            pursue = self._nonnegative(unit) if self.nonnegative else self._batched(unit)
        return lambda A: pursue(A).to(A).mul_(inverse_norms.to(A))

    def _compiled(self, U: Tensor) -> Encode:
        """Return the encoding by numba kernels, row by row."""
        grams: dict[torch.dtype, Tensor] = {}

        def encode(A: Tensor) -> Tensor:
            if A.dtype not in grams:
                grams[A.dtype] = rounded_gram(U, A.dtype)
            # In float64: float32 products over d depend on the shape of the batch, and codes must not.
            Q = (A.double() @ U.T).to(A)
            return numba_pursuit.pursue(
                Q, grams[A.dtype], A.norm(dim=1), self.nonzeros, by_error=self.selection == "error",
                nonnegative=self.nonnegative,
            )  # fmt: skip

        return encode

    def _batched(self, U: Tensor) -> Encode:
        """Return the same for all rows at once; no step waits for the GPU."""
        G = gram(U)
        size = _rows_at_once(U, self.nonzeros)

        def encode(A: Tensor) -> Tensor:
            atoms, products = U.to(A), None if G is None else G.to(A)
            codes = [A.new_zeros(0, len(U))]
            for rows in A.split(size) if len(A) else ():
                Q = rows.double() @ U.T
                picked, live = self._pursue(_over_norms(Q, rows), atoms, products)
                codes.append(solve_atoms(picked, live, Q, U, G).to(A))
            return torch.cat(codes)

        return encode

    def _pursue(self, C: Tensor, U: Tensor, G: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the atoms (n, nonzeros) picked and whether they count.  ``C`` is overwritten."""
        n, k = C.shape
        nothing = ROUNDING * torch.finfo(C.dtype).eps
        V = torch.ones_like(C)
        B = C.new_empty(n, self.nonzeros, k)
        picked = torch.empty(n, self.nonzeros, dtype=torch.int64, device=C.device)
        live = torch.empty_like(picked, dtype=torch.bool)
        for step in range(self.nonzeros):
            score = C.square()
            if self.selection == "error":
                score.div_(V)
            best, atom = score.masked_fill_(nothing >= V, 0.0).max(dim=1, keepdim=True)
            left, past = C.gather(1, atom), B[:, :step]
            # Shares of the atom along each direction (n, step, 1); `new` is the square of what is left of it.
            shares = past.gather(2, atom[:, None].expand(-1, step, 1))
            new = 1 - shares.square().sum(dim=1)
            good = (left.abs() > nothing) & (new > nothing) & (best > 0)
            scale = torch.where(good, new.clamp(min=nothing).rsqrt(), 0.0)
            w = G[atom[:, 0]] if G is not None else U[atom[:, 0]] @ U.T
            if step:
                w = torch.baddbmm(w[:, None], shares.mT, past, alpha=-1)[:, 0]
            B[:, step] = w.mul_(scale)
            C.addcmul_(w, left * scale, value=-1)
            V.addcmul_(w, w, value=-1)
            V.scatter_(1, atom, 0.0)
            picked[:, step], live[:, step] = atom[:, 0], good[:, 0]
        return picked, live

    def _nonnegative(self, U: Tensor) -> Encode:
        """Return the batched encoding to nonnegative codes."""
        search = partial(
            feature_sign, D=U, G=gram(U), penalty=0.0, steps=TRIES_PER_ATOM * len(U), nonnegative=True,
            most=self.nonzeros, by_error=self.selection == "error",
        )  # fmt: skip
        size = _rows_at_once(U, self.nonzeros)

        def encode(A: Tensor) -> Tensor:
            slack = A.norm(dim=1).double() * (ROUNDING * torch.finfo(A.dtype).eps)
            blocks = zip((A.double() @ U.T).split(size), slack.split(size), strict=True)
            codes = [search(torch.zeros_like(Q), Q, slack=limit) for Q, limit in blocks if len(Q)]
            return torch.cat([U.new_zeros(0, len(U)), *codes])

        return encode


def _rows_at_once(U: Tensor, nonzeros: int) -> int:
    return max(16, NUMBERS_AT_ONCE * (GPU_FACTOR if U.is_cuda else 1) // (nonzeros * len(U)))


def _over_norms(Q: Tensor, A: Tensor) -> Tensor:
    norms = A.double().norm(dim=1, keepdim=True)
    return torch.where(norms > 0, Q / norms, 0.0).to(A)
