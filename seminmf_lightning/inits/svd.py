"""Initialisation from the truncated SVD, optimal if the best rank-k row space holds a positive vector.

Gillis & Kumar, "Exact and heuristic algorithms for semi-nonnegative matrix factorization", SIAM J. Matrix
Anal. Appl. 36(4), 2015, Algorithms 2 and 3 (arXiv 1410.7220).  Their M = U V is our A^T = D^T Z^T transposed:
V >= 0 is D. Deviation: only the second moment C is needed, because the right singular vectors of A are the
eigenvectors of C. The atoms of Algorithm 3 are nearly collinear: this optimum is exact but hard to interpret.

Legend:  A (m, d) sample of normalised rows   C = A^T A (d, d)   D (k, d) dictionary   V (r, d) top
eigenvectors of C
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.constraints import Constraint
from seminmf_lightning.core.linalg import idle_atoms, unit_atoms
from seminmf_lightning.inits.base import Init, without_zeros

NEGLIGIBLE = 1e-12  # share of the largest eigenvalue, or column norm, below which a number is rounding
VANISHED = 1e-9  # norm below which the remainder of a unit row is rounding
LP_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class SVD(Init):
    """Algorithm 3 (error of the best rank-k matrix) if it applies, else Algorithm 2 (at most that of rank
    k - 1).  For atoms free in sign the top right singular vectors of A, which are optimal if codes are free,
    too; nonnegative codes get each of them with both signs, and NMF the positive parts of these, as in
    Boutsidis & Gallopoulos, "SVD based initialization", Pattern Recognition 41, 2008.

    >>> from seminmf_lightning.core.constraints import CONSTRAINTS
    >>> A = torch.tensor([[1.0, 2.0], [2.0, 1.0], [3.0, 3.0]])
    >>> SVD().refine(A.T @ A, 1, CONSTRAINTS["dictionary"]).round(decimals=3)
    tensor([[0.7070, 0.7070]])
    """

    def start(
        self, A: Tensor, k: int, generator: torch.Generator, *, constraint: Constraint, positive: bool = False
    ) -> Tensor:
        if not constraint.nonnegative_atoms:
            warnings.warn(
                f"init=svd with nonnegative={constraint.name} starts from the top right singular vectors "
                "of the sample, its principal directions; init=data starts from rows",
                stacklevel=2,
            )
        A = A.double()
        D = self.refine(A.T @ A, k, constraint)
        # If the rank of the data is below k, any further atom is as good.
        extra = unit_atoms(constraint.random_atoms(k - len(D), A.shape[1], generator)).to(A.device)
        D = torch.cat([D, extra])
        # Algorithm 3 is optimal as it is: lifted above zero it would no longer be.
        return without_zeros(D) if positive and constraint.nonnegative_codes else D

    def refine(self, C: Tensor, k: int, constraint: Constraint) -> Tensor:
        values, vectors = torch.linalg.eigh(C)
        rank = int((values > values[-1] * NEGLIGIBLE).sum()) if values[-1] > 0 else 0
        V = vectors.flip(1)[:, : min(k, rank)].T  # best direction first
        if not constraint.nonnegative_atoms:
            return _both_signs(V)[:k] if constraint.nonnegative_codes else V
        if constraint.nonnegative_codes:
            parts = _both_signs(V).clamp(min=0)
            return unit_atoms(parts[parts.norm(dim=1) > VANISHED][:k])
        live = V.norm(dim=0) > NEGLIGIBLE  # columns of A that are zero stay zero in D
        D = torch.zeros_like(V)
        if rank:
            D[:, live] = positive_basis(V[:, live])
        return unit_atoms(D)


def _both_signs(V: Tensor) -> Tensor:
    """Return ``V_1, -V_1, V_2, -V_2, ...`` (2 r, d), the longer positive part of a pair first."""
    first = torch.where((V.clamp(min=0).norm(dim=1) >= V.clamp(max=0).norm(dim=1))[:, None], V, -V)
    return torch.stack([first, -first], dim=1).flatten(0, 1)


def positive_basis(V: Tensor) -> Tensor:
    """Return D >= 0 (r, d) with the row space of V (r, d) if it holds a positive vector, else one that
    includes that of V[:r-1]."""
    positive = positive_combination(V)
    if positive is not None:  # Algorithm 3: lift every row by just enough of the positive vector
        lifted = _lift(V, positive)
        # Lifted rows may coincide, as every second pair in two dimensions does: then lift the opposite row.
        opposite = idle_atoms(lifted)[:, None]
        return _lift(torch.where(opposite, -V, V), positive) if opposite.any() else lifted
    # Algorithm 2: x covers the negative part of each of the first r - 1 rows, signs chosen to make x small.
    head = V[:-1]
    flip = (-head).clamp(min=0).sum(dim=1) > head.clamp(min=0).sum(dim=1)
    head = torch.where(flip[:, None], -head, head)
    if not len(head):
        return torch.where(V.clamp(min=0).norm() >= V.clamp(max=0).norm(), V, -V).clamp(min=0)
    cover = (-head).clamp(min=0).amax(dim=0)
    if not bool((cover > 0).any()):  # the head is nonnegative already: keep the last row's larger part
        return torch.cat([head, positive_basis(V[-1:])])
    return torch.cat([head + cover, cover[None]])


def _lift(V: Tensor, positive: Tensor) -> Tensor:
    lifted = (V + (-V / positive).amax(dim=1, keepdim=True) * positive).clamp(min=0)
    vanished = lifted.norm(dim=1, keepdim=True) <= VANISHED  # a multiple of the positive vector
    return torch.where(vanished, positive, lifted)


def positive_combination(V: Tensor) -> Tensor | None:
    """Return ``V^T x > 0`` with the largest least entry over ``|x| <= 1``, or None; solved as a linear
    programme."""
    from scipy.optimize import linprog

    rows, columns = V.shape
    result = linprog(
        c=np.append(np.zeros(rows), -1.0),
        A_ub=np.hstack([-V.T.cpu().numpy(), np.ones((columns, 1))]),
        b_ub=np.zeros(columns),
        bounds=[(-1, 1)] * rows + [(None, None)],
        method="highs",
        options={"time_limit": LP_SECONDS},
    )
    if result.x is None:
        return None
    combination = torch.from_numpy(result.x[:-1]).to(V) @ V
    return combination if bool((combination > NEGLIGIBLE * combination.abs().max()).all()) else None
