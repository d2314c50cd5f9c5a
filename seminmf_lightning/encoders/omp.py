"""Orthogonal matching pursuit with a fixed number of nonzeros, the whole batch at once.

Pati, Rezaiifar & Krishnaprasad, 1993; in terms of correlations alone as in Rubinstein, Zibulevsky & Elad,
"Efficient implementation of the K-SVD algorithm using batch orthogonal matching pursuit", 2008.  Each step
picks for every row the atom most correlated with its residual, makes it orthonormal to those picked before,
and takes its part out of the correlations; the codes are the least-squares ones on the picked atoms.

Legend:  A (n, d)   Z (n, k)   D (k, d)   U = unit atoms (k, d)   C (n, k) residual correlations
         B (n, s, k) correlations of the s orthonormal directions of each row with all atoms
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from seminmf_lightning.core.checks import whole_number
from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.encoders import numba_kernels as compiled
from seminmf_lightning.encoders.active_set import gram, rounded_gram, solve_on_support
from seminmf_lightning.encoders.base import Effort, Encode, Encoder

NUMBERS_AT_ONCE = 2**21
"""Numbers of B in work at a time: they stay in the processor's cache; a GPU takes GPU_FACTOR times as
many."""
GPU_FACTOR = 64
NOTHING_LEFT = 64.0
"""In units of rounding: a row is finished where no correlation is above this share of its norm; an atom is
taken as dependent on those picked where the square of what is new in it is below this."""


@dataclass(frozen=True, kw_only=True)
class OMP(Encoder):
    """``nonzeros`` codes a row (fewer where fewer fit the row exactly)."""

    nonzeros: int = 16
    """Nonzeros a row; at most min(k, d)."""

    sparse: ClassVar[bool] = True

    def __post_init__(self) -> None:
        whole_number("encoder.nonzeros", self.nonzeros, 1)

    def check(self, concepts: int, features: int) -> None:
        if self.nonzeros > min(concepts, features):
            raise ValueError(
                f"encoder.nonzeros={self.nonzeros} is more than min(nb_concepts={concepts}, features={features}); lower it"
            )

    def training(self, D: Tensor, effort: Effort) -> Encode:
        return self.precise(D)

    def precise(self, D: Tensor, effort: Effort = ()) -> Encode:
        self.check(*D.shape)
        if compiled.usable(D):
            return _exact_rows(D, self.nonzeros)
        unit, G = unit_atoms(D), gram(D)
        norms = D.norm(dim=1)
        unit_gram = unit @ unit.T if G is not None else None
        size = NUMBERS_AT_ONCE * (GPU_FACTOR if D.is_cuda else 1) // (self.nonzeros * D.shape[0])

        def encode(A: Tensor) -> Tensor:
            atoms = D.to(A)
            # In float64, because float32 products over d depend on the shape of the batch, and codes must
            # not.
            Q = (A.double() @ atoms.double().T).to(A)
            C = torch.where(norms > 0, Q / norms, 0.0).to(A)
            picked = [
                _pursue(rows, norm, unit.to(A), None if unit_gram is None else unit_gram.to(A), self.nonzeros)
                for rows, norm in zip(C.split(max(16, size)), A.norm(dim=1).split(max(16, size)), strict=True)
            ]
            return solve_on_support(torch.cat(picked), Q, atoms, G, 0.0)

        return encode


def _exact_rows(D: Tensor, nonzeros: int) -> Encode:
    """The same by compiled code."""
    unit = unit_atoms(D.double())
    norms = D.double().norm(dim=1)
    lengths = torch.where(norms > 0, 1 / norms, 0.0)
    grams: dict[torch.dtype, Tensor] = {}

    def encode(A: Tensor) -> Tensor:
        if A.dtype not in grams:
            grams[A.dtype] = rounded_gram(unit, A.dtype)
        return compiled.pursue((A.double() @ unit.T).to(A), grams[A.dtype], A.norm(dim=1), nonzeros).mul_(
            lengths.to(A)
        )

    return encode


def _pursue(C: Tensor, norms: Tensor, unit: Tensor, gram: Tensor | None, nonzeros: int) -> Tensor:
    """One (n, k) where an atom is picked, zero elsewhere.  ``C`` is used up."""
    n, k = C.shape
    nothing = NOTHING_LEFT * torch.finfo(C.dtype).eps
    picked = torch.zeros_like(C)
    B = C.new_empty(n, nonzeros, k)
    for step in range(nonzeros):
        atom = C.abs().argmax(dim=1, keepdim=True)
        left = C.gather(1, atom)
        past = B[:, :step]
        shares = past.gather(
            2, atom[:, None].expand(-1, step, 1)
        )  # of the atom along each direction (n, step, 1)
        new = 1 - shares.square().sum(dim=1)
        good = (left.abs() > nothing * norms[:, None]) & (new > nothing)
        scale = torch.where(good, new.clamp(min=nothing).rsqrt(), 0.0)
        direction = gram[atom[:, 0]] if gram is not None else unit[atom[:, 0]] @ unit.T
        if step:
            direction = torch.baddbmm(direction[:, None], shares.mT, past, alpha=-1)[:, 0]
        B[:, step] = direction.mul_(scale)
        C.addcmul_(B[:, step], left * scale, value=-1)
        C.scatter_(1, atom, 0.0)
        picked.scatter_add_(1, atom, good.to(C))
    return picked
