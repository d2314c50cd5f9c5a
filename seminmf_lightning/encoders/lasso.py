"""Lasso codes: a few ADMM iterations find the support, exact solves on the support finish, the duality gap
certifies.

``min_z 1/2 ||a - z D||^2 + l1_penalty ||z||_1``

Boyd et al., "Distributed optimization and statistical learning via ADMM", 2011, section 6.4, over-relaxed
(3.4.3), with one cached factor.  Nonnegative atoms share one huge eigenvalue, on which proximal gradient
methods crawl; the cached inverse takes it out.  The solves keep the signs that ADMM found, as in the
feature-sign search of Lee et al., 2007.

Legend:  A (n, d)   Z (n, k)   D (k, d)   Q = A D^T (n, k)   G = D D^T (k, k)   R = rho (G + rho I)^-1 (k, k)
         V (n, k) the one state of the iteration: the multiplier is clip(V), the codes are V - clip(V)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from seminmf_lightning.core.checks import real_number, whole_number
from seminmf_lightning.core.objective import lasso_duality_gap
from seminmf_lightning.encoders import numba_kernels as compiled
from seminmf_lightning.encoders.active_set import gram, rounded_gram, solve_on_support, support_work
from seminmf_lightning.encoders.base import Effort, Encode, Penalised
from seminmf_lightning.encoders.feature_sign import feature_sign

OVER_RELAXATION = 1.8
USUAL_RHO = 2.0
RHOS = (1.0, 0.5, 4.0, 0.25, 8.0, 2.0)  # candidates; a mean row norm of 1 and unit atoms fix the scale
ROUNDS = 3  # exact solves on the support, each without the codes whose sign the last one changed
LOOKS = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)  # iterations at which `settle` looks
FIRST_CHECK = 10  # iterations before the first look at the gap of each row
CRAWLING = 2  # looks after which the rows still open are searched for exactly
SEARCH_ROWS, SEARCH_STEPS = 256, 200
REFERENCE = 0.25  # share of the gap asked for, to which the reference of `settle` is known
SETTLE_ROWS = 256
CODES_AT_ONCE = 2**25  # bounds the memory: (rows, k) matrices have at most so many numbers


@dataclass(frozen=True, kw_only=True)
class Lasso(Penalised):
    """Sparse codes to a relative duality gap."""

    l1_penalty: float
    """Weight of ``||z||_1``; above 0."""
    gap: float = 1e-3
    """In training: mean distance from the least objective over mean objective, at most, on a fixed sample of
    rows."""
    precise_gap: float = 1e-4
    """At validation and in ``encode``: duality gap over objective, for every row."""
    max_iter: int = 1000
    """Most ADMM iterations; a row that needs more keeps the codes it has."""
    refit: bool = False
    """At validation and in ``encode``: replace the codes by the least-squares ones on their support,
    unshrunk."""

    default_for: ClassVar[str | None] = "penalised"
    sparse: ClassVar[bool] = True

    def __post_init__(self) -> None:
        real_number("l1_penalty", self.l1_penalty, 0, exclusive=True)
        real_number("encoder.gap", self.gap, 0, exclusive=True)
        real_number("encoder.precise_gap", self.precise_gap, 0, exclusive=True)
        whole_number("encoder.max_iter", self.max_iter, 1)

    def settle(self, D: Tensor, sample: Tensor, effort: Effort = ()) -> Effort:
        """The rho and the number of iterations that reach the mean ``gap`` on the sample with the least work:
        fewer iterations leave larger supports to solve on.  Where none does, those that come closest."""
        if compiled.usable(D):
            return ()
        first = effort[0] if effort else USUAL_RHO
        usual = _Admm(D, self.l1_penalty, first)
        least = self._least(sample, usual, self.gap * REFERENCE)
        best, best_work = (first, LOOKS[-1]), float("inf")
        closest = float("inf")
        for rho in (
            first,
            *(rho for rho in RHOS if rho != first and (not effort or 0.5 <= rho / first <= 2)),
        ):
            admm = usual if rho == first else _Admm(D, self.l1_penalty, rho)
            Q, base, V = admm.start(sample)
            close, before = False, 0
            for done in LOOKS:
                if done * admm.iteration_work >= best_work or done >= self.max_iter:
                    break
                V, before = admm.iterate(V, base, done - before), done
                if not close:
                    reached = lasso_duality_gap(sample, admm.finish(V, Q), D, self.l1_penalty)[0].sum()
                    close = bool(reached - least <= self.gap * reached)
                    if best_work == float("inf") and float(reached) < closest:
                        best, closest = (rho, done), float(reached)
                work = done * admm.iteration_work + support_work(admm.codes(V))
                if close and work < best_work:
                    best, best_work = (rho, done), work
        return best

    def training(self, D: Tensor, effort: Effort) -> Encode:
        """A fixed number of iterations and rounds, whatever the row; exact codes where there is a compiled
        way to them."""
        if compiled.usable(D):
            return exact_rows(D, self.l1_penalty)
        rho, iterations = effort
        admm = _Admm(D, self.l1_penalty, rho)

        def encode(A: Tensor) -> Tensor:
            Q, base, V = admm.start(A)
            return admm.finish(admm.iterate(V, base, int(iterations)), Q)

        return lambda A: torch.cat([encode(rows) for rows in A.split(admm.rows_at_once)])

    def precise(self, D: Tensor, effort: Effort = ()) -> Encode:
        settled: list[tuple[_Admm, Encode | None]] = []

        def encode(A: Tensor) -> Tensor:
            atoms = D.to(A)
            if not len(A):
                return A.new_zeros(0, len(D))
            if not settled:
                found = effort or self.settle(atoms, A[:SETTLE_ROWS]) or (USUAL_RHO,)
                exact = exact_rows(atoms, self.l1_penalty) if compiled.usable(atoms) else None
                settled.append((_Admm(atoms, self.l1_penalty, found[0]), exact))
            admm, exact = settled[0]
            return torch.cat([self._finished(rows, admm, exact) for rows in A.split(admm.rows_at_once)])

        return encode

    def with_penalty(self, l1_penalty: float) -> Lasso:
        return replace(self, l1_penalty=l1_penalty)

    def with_limits(self, max_iter: int | None, tol: float | None) -> Lasso:
        return replace(
            self,
            max_iter=self.max_iter if max_iter is None else max_iter,
            precise_gap=self.precise_gap if tol is None else tol,
        )

    def _finished(self, A: Tensor, admm: _Admm, exact: Encode | None) -> Tensor:
        if exact is not None:
            Z = exact(A)
            objective, gap = lasso_duality_gap(A, Z, admm.D, self.l1_penalty)
            if len(rest := (gap > self.precise_gap * objective).nonzero()[:, 0]):
                Z[rest] = self._to_gap(A[rest], admm, self.precise_gap)
        else:
            Z = self._to_gap(A, admm, self.precise_gap)
        return solve_on_support(Z, admm.correlations(A), admm.D, admm.G, 0.0) if self.refit else Z

    def _least(self, A: Tensor, admm: _Admm, wanted: float) -> Tensor:
        """A lower bound of the sum of the objectives, to ``wanted`` of it."""
        Q, base, V = admm.start(A)
        primal, dual = (A.new_full((A.shape[0],), value) for value in (torch.inf, 0.0))
        for wait in _waits(self.max_iter):
            V = admm.iterate(V, base, wait)
            objective, gap = lasso_duality_gap(A, admm.finish(V, Q), admm.D, self.l1_penalty)
            primal, dual = torch.minimum(primal, objective), torch.maximum(dual, objective - gap)
            if (primal - dual).sum() <= wanted * primal.sum():
                break
        return dual.sum()

    def _to_gap(self, A: Tensor, admm: _Admm, wanted: float) -> Tensor:
        """Iterate until each row's gap is at most ``wanted`` of its objective; finished rows leave the batch.

        Where atoms depend on each other the system on a support may be singular and its solution worse than
        the codes it came from: those are looked at too, and where that does not help either the exact codes
        are searched for.  The codes of the smallest gap are kept.
        """
        Z = A.new_zeros(A.shape[0], admm.D.shape[0])
        least = A.new_full((A.shape[0],), torch.inf)
        Q, base, V = admm.start(A)
        open_rows = torch.arange(A.shape[0], device=A.device)
        looks = 0
        for wait in _waits(self.max_iter):
            V, looks = admm.iterate(V, base, wait), looks + 1
            for way in (
                (admm.finish, admm.codes, admm.search) if looks >= CRAWLING else (admm.finish, admm.codes)
            ):
                if not len(open_rows):
                    return Z
                codes = way(V, Q)
                objective, gap = lasso_duality_gap(A, codes, admm.D, self.l1_penalty)
                better = gap < least
                Z[open_rows[better]], least = codes[better], torch.minimum(gap, least)
                unfinished = (least > wanted * objective).nonzero()[:, 0]
                if len(unfinished) < len(open_rows):
                    A, Q, V, base, open_rows, least = (
                        x[unfinished] for x in (A, Q, V, base, open_rows, least)
                    )
        return Z


def exact_rows(D: Tensor, penalty: float) -> Encode:
    """Exact codes by compiled code."""
    E = D.double()
    G = rounded_gram(E, D.dtype)
    return lambda A: compiled.lasso((A.double() @ E.T).to(A), G, penalty)


def _waits(max_iter: int) -> Iterator[int]:
    """Iterations between looks at the gap, ``max_iter`` in all: each wait half as long again as the last."""
    wait = FIRST_CHECK
    while max_iter > 0:
        yield min(wait, max_iter)
        max_iter, wait = max_iter - wait, wait + wait // 2


class _Admm:
    """The iteration for one dictionary, penalty and rho."""

    def __init__(self, D: Tensor, penalty: float, rho: float) -> None:
        self.D, self.penalty, self.rho = D, penalty, rho
        self.threshold = penalty / rho
        self.G = gram(D)
        self.factor = _relaxed_factor(D, self.G, rho)

    @property
    def rows_at_once(self) -> int:
        return max(1, CODES_AT_ONCE // self.D.shape[0])

    def correlations(self, A: Tensor) -> Tensor:
        # In float64, because float32 products over d depend on the shape of the batch, and codes must not.
        return (A.double() @ self.D.double().T).to(A)

    def start(self, A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Q, the constant term ``OVER_RELAXATION Q (G + rho I)^-1``, and V after one step from zero."""
        Q = self.correlations(A)
        if len(self.factor) == 1:
            base = (Q @ self.factor[0]).add_(Q, alpha=OVER_RELAXATION - 1).div_(self.rho)
        else:
            base = Q.sub((Q @ self.factor[0]) @ self.factor[1]).mul_(OVER_RELAXATION / self.rho)
        return Q, base, base.clone()

    def iterate(self, V: Tensor, base: Tensor, iterations: int) -> Tensor:
        """``V <- base + (2 - a) U + (V - 2 U) (a R - (a - 1) I)``, a the over-relaxation and U = clip(V,
        +-threshold).

        The textbook's three updates, written in the one variable V = codes + multiplier.
        """
        for _ in range(iterations):
            U = V.clamp(-self.threshold, self.threshold)
            reflected = torch.sub(V, U, alpha=2)
            following = torch.add(base, U, alpha=2 - OVER_RELAXATION, out=U)
            if len(self.factor) == 1:
                V = torch.addmm(following, reflected, self.factor[0], out=V)
            else:
                following.add_(reflected)
                V = torch.addmm(
                    following, reflected @ self.factor[0], self.factor[1], alpha=-OVER_RELAXATION, out=V
                )
        return V

    @property
    def iteration_work(self) -> float:
        """Operations of an iteration, a row."""
        k, d = self.D.shape
        return 2 * k * min(k, 2 * d)

    def codes(self, V: Tensor, Q: Tensor | None = None) -> Tensor:
        """The codes of the state."""
        return torch.nn.functional.softshrink(V, self.threshold)

    def finish(self, V: Tensor, Q: Tensor) -> Tensor:
        """The codes of the state, made exact on their support."""
        return solve_on_support(self.codes(V), Q, self.D, self.G, self.penalty, ROUNDS)

    def search(self, V: Tensor, Q: Tensor) -> Tensor:
        """The exact codes, searched from those of the state."""
        parts = zip(V.split(SEARCH_ROWS), Q.split(SEARCH_ROWS), strict=True)
        return torch.cat(
            [feature_sign(self.codes(v), q, self.D, self.G, self.penalty, SEARCH_STEPS) for v, q in parts]
        )


def _relaxed_factor(D: Tensor, G: Tensor | None, rho: float) -> tuple[Tensor, ...]:
    """``a R - (a - 1) I`` (k, k), a the over-relaxation; where k > 2 d the pair (D, K) with ``R = I - D K``,
    K (d, k)."""
    k, d = D.shape
    if G is not None and k <= d:
        shifted = G.clone()
        shifted.diagonal().add_(rho)
        matrix = torch.cholesky_inverse(torch.linalg.cholesky(shifted)).mul_(rho * OVER_RELAXATION)
        matrix.diagonal().sub_(OVER_RELAXATION - 1)
        return (matrix.to(D),)
    E = D.double()
    inner = E.T @ E
    inner.diagonal().add_(rho)
    K = torch.cholesky_solve(E.T, torch.linalg.cholesky(inner))
    if G is None:
        return D, K.to(D)
    matrix = (E @ K).mul_(-OVER_RELAXATION)
    matrix.diagonal().add_(1)
    return (matrix.to(D),)
