"""Orthogonal matching pursuit with a fixed number of nonzeros, for a whole batch.

Pati, Rezaiifar & Krishnaprasad, 1993; in terms of correlations alone as in Rubinstein, Zibulevsky & Elad,
"Efficient implementation of the K-SVD algorithm using batch orthogonal matching pursuit", 2008.  Each step
picks for every row the atom most correlated with its residual, orthonormalises it against those picked
before, and removes its part from the correlations; the codes are the least-squares ones on the picked atoms.
Nonnegative codes: Bruckstein, Elad & Zibulevsky, "On the uniqueness of nonnegative sparse solutions to
underdetermined systems of equations", IEEE Trans. Inf. Theory 54(11), 2008: each step picks the atom of
largest positive correlation, and drops atoms whose least-squares code would fall below 0.

Legend:  A (n, d)   Z (n, k)   D (k, d)   U = unit atoms (k, d)   C (n, k) residual correlations
         B (n, s, k) correlations of the s orthonormal directions of each row with all atoms
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.encoders import numba_kernels
from seminmf_lightning.encoders.active_set import gram, rounded_gram, solve_on_support
from seminmf_lightning.encoders.base import Effort, Encode, FixedNonzeros
from seminmf_lightning.encoders.least_squares import nonnegative_codes

NUMBERS_AT_ONCE = 2**21
"""Numbers of B held at a time, which fit the processor's cache; a GPU takes GPU_FACTOR times as many."""
GPU_FACTOR = 64
NOTHING_LEFT = 64.0
"""In units of rounding: a row is finished when no correlation exceeds this share of its norm; an atom depends
on those picked when the square of its new part is below this."""


@dataclass(frozen=True, kw_only=True)
class OMP(FixedNonzeros):
    """``min_z ||a - z D||`` with at most ``nonzeros`` codes, chosen greedily; fewer if they fit exactly.

    >>> D = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    >>> OMP(nonzeros=1).precise(D)(torch.tensor([[-3.0, 0.5]]))
    tensor([[-3.,  0.]])
    """

    def precise(self, D: Tensor, effort: Effort = ()) -> Encode:
        self.check(*D.shape)
        if self.nonnegative:
            lengths = D.double().norm(dim=1)
            inverse = torch.where(lengths > 0, 1 / lengths, 0.0)
            pursue = nonnegative_codes(unit_atoms(D), self.nonzeros)
            return lambda A: pursue(A) * inverse.to(A)
        if numba_kernels.usable(D):
            return _compiled(D, self.nonzeros)
        unit, G = unit_atoms(D), gram(D)
        norms = D.norm(dim=1)
        unit_gram = unit @ unit.T if G is not None else None
        size = max(16, NUMBERS_AT_ONCE * (GPU_FACTOR if D.is_cuda else 1) // (self.nonzeros * D.shape[0]))

        def encode(A: Tensor) -> Tensor:
            atoms = D.to(A)
            # In float64: float32 products over d depend on the shape of the batch, and codes must not.
            Q = (A.double() @ atoms.double().T).to(A)
            C = torch.where(norms > 0, Q / norms, 0.0).to(A)
            U, UU = unit.to(A), None if unit_gram is None else unit_gram.to(A)
            blocks = zip(C.split(size), A.norm(dim=1).split(size), strict=True)
            picked = [_pursue(rows, row_norms, U, UU, self.nonzeros) for rows, row_norms in blocks]
            return solve_on_support(torch.cat(picked), Q, atoms, G, 0.0)

        return encode


def _compiled(D: Tensor, nonzeros: int) -> Encode:
    """Return the same encoding by numba kernels."""
    unit = unit_atoms(D.double())
    norms = D.double().norm(dim=1)
    inverse_norms = torch.where(norms > 0, 1 / norms, 0.0)
    grams: dict[torch.dtype, Tensor] = {}

    def encode(A: Tensor) -> Tensor:
        if A.dtype not in grams:
            grams[A.dtype] = rounded_gram(unit, A.dtype)
        Q = (A.double() @ unit.T).to(A)
        return numba_kernels.pursue(Q, grams[A.dtype], A.norm(dim=1), nonzeros).mul_(inverse_norms.to(A))

    return encode


def _pursue(C: Tensor, norms: Tensor, unit: Tensor, gram: Tensor | None, nonzeros: int) -> Tensor:
    """Return a matrix (n, k) that is 1 where an atom is picked, else 0.  ``C`` is overwritten."""
    n, k = C.shape
    nothing = NOTHING_LEFT * torch.finfo(C.dtype).eps
    picked = torch.zeros_like(C)
    B = C.new_empty(n, nonzeros, k)
    for step in range(nonzeros):
        atom = C.abs().argmax(dim=1, keepdim=True)
        left = C.gather(1, atom)
        past = B[:, :step]
        # Shares of the atom along each direction (n, step, 1); `new` is the square of what is left of it.
        shares = past.gather(2, atom[:, None].expand(-1, step, 1))
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
