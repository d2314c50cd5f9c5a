"""Lasso codes by ADMM with one cached factor, certified by the duality gap.

``min_z 1/2 ||a - z D||^2 + l1_penalty ||z||_1``

Boyd et al., "Distributed optimization and statistical learning via ADMM", 2011, section 6.4, over-relaxed (3.4.3).
Nonnegative atoms share one huge eigenvalue, on which proximal gradient methods crawl; the cached inverse takes it out.

Legend:  A (n, d)   Z (n, k)   D (k, d)   G = D D^T (k, k)   R = rho (G + rho I)^-1 (k, k)
         V (n, k) the one state of the iteration: the multiplier is clip(V), the codes are V - clip(V)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from seminmf_lightning.checks import real_number, whole_number
from seminmf_lightning.encoders.base import Effort, Encode, Encoder
from seminmf_lightning.objective import lasso_duality_gap

OVER_RELAXATION = 1.6
USUAL_RHO = 1.0
RHOS = (0.1, 0.3, 1.0, 3.0, 10.0)  # candidates; a mean row norm of 1 and unit atoms fix the scale
CHECK_EVERY = 10  # iterations between looks at the gap
SETTLE_STEP = 5
SETTLE_ROWS = 256
ROWS_AT_ONCE = 4096  # bounds the memory of `precise`


@dataclass(frozen=True, kw_only=True)
class Lasso(Encoder):
    """Sparse codes to a relative duality gap."""

    l1_penalty: float
    """Weight of ``||z||_1``; above 0."""
    gap: float = 1e-3
    """In training: mean duality gap over mean objective, on a fixed sample of rows."""
    precise_gap: float = 1e-4
    """At validation and in ``encode``: duality gap over objective, for every row."""
    max_iter: int = 1000
    """Most ADMM iterations; a row that needs more keeps the codes it has."""

    sparse: ClassVar[bool] = True

    def __post_init__(self) -> None:
        real_number("l1_penalty", self.l1_penalty, 0, exclusive=True)
        real_number("encoder.gap", self.gap, 0, exclusive=True)
        real_number("encoder.precise_gap", self.precise_gap, 0, exclusive=True)
        whole_number("encoder.max_iter", self.max_iter, 1)

    def settle(self, D: Tensor, sample: Tensor) -> Effort:
        """The rho, and its number of iterations, that reach the mean relative ``gap`` on the sample soonest."""
        best = (USUAL_RHO, self.max_iter)
        for rho in sorted(RHOS, key=lambda rho: abs(rho - USUAL_RHO)):
            factor, threshold = _relaxed_factor(D, rho), self.l1_penalty / rho
            base, V = _start(sample, D, factor, rho)
            for done in range(SETTLE_STEP, best[1], SETTLE_STEP):
                V = _iterate(V, base, factor, threshold, SETTLE_STEP)
                objective, gap = lasso_duality_gap(sample, _codes(V, threshold), D, self.l1_penalty)
                if gap.sum() <= self.gap * objective.sum():
                    best = (rho, done)
                    break
        return best

    def training(self, D: Tensor, effort: Effort) -> Encode:
        """A fixed number of iterations: no look at the data, no waiting for the device."""
        rho, iterations = effort
        factor, threshold = _relaxed_factor(D, rho), self.l1_penalty / rho

        def encode(A: Tensor) -> Tensor:
            base, V = _start(A, D, factor, rho)
            return _codes(_iterate(V, base, factor, threshold, int(iterations)), threshold)

        return encode

    def precise(self, D: Tensor, effort: Effort = ()) -> Encode:
        settled = list(effort)

        def encode(A: Tensor) -> Tensor:
            atoms = D.to(A)
            if not len(A):
                return A.new_zeros(0, len(D))
            if not settled:
                settled.extend(self.settle(atoms, A[:SETTLE_ROWS]))
            return torch.cat([self.to_gap(rows, atoms, settled[0]) for rows in A.split(ROWS_AT_ONCE)])

        return encode

    def with_limits(self, max_iter: int | None, tol: float | None) -> Lasso:
        return replace(
            self,
            max_iter=self.max_iter if max_iter is None else max_iter,
            precise_gap=self.precise_gap if tol is None else tol,
        )

    def to_gap(self, A: Tensor, D: Tensor, rho: float) -> Tensor:
        """Iterate until each row is within ``precise_gap``; finished rows leave the batch."""
        Z = A.new_zeros(A.shape[0], D.shape[0])
        factor, threshold = _relaxed_factor(D, rho), self.l1_penalty / rho
        base, V = _start(A, D, factor, rho)
        open_rows = torch.arange(A.shape[0], device=A.device)
        for _ in range(0, self.max_iter, CHECK_EVERY):
            V = _iterate(V, base, factor, threshold, CHECK_EVERY)
            codes = _codes(V, threshold)
            objective, gap = lasso_duality_gap(A, codes, D, self.l1_penalty)
            Z[open_rows] = codes
            unfinished = (gap > self.precise_gap * objective).nonzero()[:, 0]
            if not len(unfinished):
                break
            if len(unfinished) < len(open_rows):
                open_rows, A, V, base = open_rows[unfinished], A[unfinished], V[unfinished], base[unfinished]
        return Z


def _relaxed_factor(D: Tensor, rho: float) -> tuple[Tensor, ...]:
    """R in the cheaper form: one (k, k) matrix, or where k > 2 d the pair (D, K) with ``R = I - D K``, K (d, k)."""
    k, d = D.shape
    E = D.double()
    if k > 2 * d:
        inner = E.T @ E
        inner.diagonal().add_(rho)
        return D, torch.cholesky_solve(E.T, torch.linalg.cholesky(inner)).to(D)
    gram = E @ E.T
    gram.diagonal().add_(rho)
    matrix = torch.cholesky_inverse(torch.linalg.cholesky(gram)).mul_(rho * OVER_RELAXATION)
    matrix.diagonal().sub_(OVER_RELAXATION - 1)
    return (matrix.to(D),)


def _start(A: Tensor, D: Tensor, factor: tuple[Tensor, ...], rho: float) -> tuple[Tensor, Tensor]:
    """The constant term ``OVER_RELAXATION A D^T (G + rho I)^-1`` and V after one step from zero."""
    # In float64, because float32 products over d depend on the shape of the batch, and codes must not.
    Q = (A.double() @ D.double().T).to(A)
    if len(factor) == 1:
        base = (Q @ factor[0]).add_(Q, alpha=OVER_RELAXATION - 1).div_(rho)
    else:
        base = Q.sub_((Q @ factor[0]) @ factor[1]).mul_(OVER_RELAXATION / rho)
    return base, base.clone()


def _iterate(V: Tensor, base: Tensor, factor: tuple[Tensor, ...], threshold: float, iterations: int) -> Tensor:
    """``V <- base + (2 - a) U + (V - 2 U) (a R - (a - 1) I)``, a the over-relaxation and U = clip(V, +-threshold).

    The textbook's three updates, written in the one variable V = codes + multiplier.
    """
    for _ in range(iterations):
        U = V.clamp(-threshold, threshold)
        reflected = torch.sub(V, U, alpha=2)
        following = torch.add(base, U, alpha=2 - OVER_RELAXATION)
        if len(factor) == 1:
            V = torch.addmm(following, reflected, factor[0], out=V)
        else:
            following.add_(reflected)
            V = torch.addmm(following, reflected @ factor[0], factor[1], alpha=-OVER_RELAXATION, out=V)
    return V


def _codes(V: Tensor, threshold: float) -> Tensor:
    return torch.nn.functional.softshrink(V, threshold)
