"""Lasso codes: a few ADMM iterations find the support, exact solves on it finish, the duality gap certifies.

``min_z 1/2 ||a - z D||^2 + l1_penalty ||z||_1``, over ``z >= 0`` if codes are nonnegative

The solves keep the signs from ADMM, as in the feature-sign search of Lee et al., 2007.  With numba on
the CPU, a compiled search gives exact codes row by row instead.

Legend:  A (n, d)   Z (n, k)   D (k, d)   Q = A D^T (n, k)   G = D D^T (k, k)   V (n, k) state of the
iteration
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from seminmf_lightning.core.checks import real_number, whole_number
from seminmf_lightning.core.compiled import on_cpu
from seminmf_lightning.core.objective import lasso_duality_gap
from seminmf_lightning.encoders import numba_kernels, working_set
from seminmf_lightning.encoders.active_set import rounded_gram, solve_on_support, support_work
from seminmf_lightning.encoders.admm import ADMM, ROUNDS
from seminmf_lightning.encoders.base import Effort, Encode, Penalised

USUAL_RHO = 2.0
RHOS = (1.0, 0.5, 4.0, 0.25, 8.0, 2.0)  # candidates; a mean row norm of 1 and unit atoms fix the scale
# iterations at which calibration measures the gap
CHECKPOINTS = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
REFERENCE = 0.25  # share of the requested gap within which calibration computes the minimal objective
CALIBRATION_ROWS = 256
FIRST_CHECK = 10  # iterations before the gap of each row is first checked
CRAWLING = 2  # checks after which unfinished rows get an exact search, too


@dataclass(frozen=True, kw_only=True)
class Lasso(Penalised):
    """Sparse codes to a relative duality gap.

    >>> D = torch.eye(2)
    >>> Lasso(l1_penalty=0.1).precise(D)(torch.tensor([[0.5, -0.05]]))
    tensor([[0.4000, 0.0000]])
    """

    l1_penalty: float
    """Weight of ``||z||_1``; above 0."""
    gap: float = 1e-3
    """Training: maximum mean excess over the minimal objective on a fixed sample, relative to the mean
    objective."""
    precise_gap: float = 1e-4
    """Validation and ``encode``: maximum relative duality gap of each row."""
    max_iter: int = 1000
    """Maximum ADMM iterations; a row that needs more keeps its best codes so far."""
    refit: bool = False
    """Validation and ``encode``: replace the codes by least squares on their support, without shrinkage."""

    default_for: ClassVar[str | None] = "penalised"
    sparse: ClassVar[bool] = True
    supports_nonnegative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        real_number("l1_penalty", self.l1_penalty, 0, exclusive=True)
        real_number("encoder.gap", self.gap, 0, exclusive=True)
        real_number("encoder.precise_gap", self.precise_gap, 0, exclusive=True)
        whole_number("encoder.max_iter", self.max_iter, 1)

    def calibrate(self, D: Tensor, sample: Tensor, effort: Effort = ()) -> Effort:
        """Return the rho and the number of iterations that reach the mean ``gap`` on the sample with the
        least work.

        Fewer iterations leave larger supports to solve on.  If no candidate reaches the gap, the closest one.
        """
        if on_cpu(D):
            return ()
        first = effort[0] if effort else USUAL_RHO
        usual = self._admm(D, first)
        least = self._least_objective(sample, usual, self.gap * REFERENCE)
        best, best_work = (first, CHECKPOINTS[-1]), float("inf")
        closest = float("inf")
        others = (rho for rho in RHOS if rho != first and (not effort or 0.5 <= rho / first <= 2))
        for rho in (first, *others):
            admm = usual if rho == first else self._admm(D, rho)
            Q, base, V = admm.start(sample)
            close, before = False, 0
            for done in CHECKPOINTS:
                if done * admm.iteration_work >= best_work or done >= self.max_iter:
                    break
                V, before = admm.iterate(V, base, done - before), done
                if not close:
                    reached = self._objective_and_gap(sample, admm.finish(V, Q), D)[0].sum()
                    close = bool(reached - least <= self.gap * reached)
                    if best_work == float("inf") and float(reached) < closest:
                        best, closest = (rho, done), float(reached)
                work = done * admm.iteration_work + support_work(admm.codes(V))
                if close and work < best_work:
                    best, best_work = (rho, done), work
        return best

    def training(self, D: Tensor, effort: Effort) -> Encode:
        """Return an encoding of fixed iterations and rounds for every row, or the exact one if it is
        compiled."""
        if on_cpu(D):
            return self._compiled(D)
        rho, iterations = effort
        admm = self._admm(D, rho)

        def encode(A: Tensor) -> Tensor:
            Q, base, V = admm.start(A)
            return admm.finish(admm.iterate(V, base, int(iterations)), Q)

        return lambda A: torch.cat([encode(rows) for rows in A.split(admm.rows_at_once)])

    def precise(self, D: Tensor, effort: Effort = ()) -> Encode:
        prepared: list[tuple[ADMM, Encode | None]] = []

        def encode(A: Tensor) -> Tensor:
            atoms = D.to(A)
            if not len(A):
                return A.new_zeros(0, len(D))
            if not prepared:
                rho = (effort or self.calibrate(atoms, A[:CALIBRATION_ROWS]) or (USUAL_RHO,))[0]
                exact = self._compiled(atoms) if on_cpu(atoms) else None
                prepared.append((self._admm(atoms, rho), exact))
            admm, exact = prepared[0]
            return torch.cat([self._certified(rows, admm, exact) for rows in A.split(admm.rows_at_once)])

        return encode

    def with_penalty(self, l1_penalty: float) -> Lasso:
        return replace(self, l1_penalty=l1_penalty)

    def with_limits(self, max_iter: int | None, tol: float | None) -> Lasso:
        return replace(
            self,
            max_iter=self.max_iter if max_iter is None else max_iter,
            precise_gap=self.precise_gap if tol is None else tol,
        )

    def _admm(self, D: Tensor, rho: float) -> ADMM:
        return ADMM(D, self.l1_penalty, rho, nonnegative=self.nonnegative)

    def _objective_and_gap(self, A: Tensor, Z: Tensor, D: Tensor) -> tuple[Tensor, Tensor]:
        return lasso_duality_gap(A, Z, D, self.l1_penalty, nonnegative=self.nonnegative)

    def _compiled(self, D: Tensor) -> Encode:
        """Return the encoding to exact codes by numba kernels."""
        if len(D) >= working_set.CONCEPTS:
            return lambda A: working_set.lasso(A, D, self.l1_penalty, nonnegative=self.nonnegative)
        E = D.double()
        G = rounded_gram(E, D.dtype)
        return lambda A: numba_kernels.lasso(
            (A.double() @ E.T).to(A), G, self.l1_penalty, nonnegative=self.nonnegative
        )

    def _certified(self, A: Tensor, admm: ADMM, exact: Encode | None) -> Tensor:
        """Return codes to the ``precise_gap``, refitted if ``refit``."""
        if exact is None:
            Z = self._to_gap(A, admm)
        else:
            Z = exact(A)
            objective, gap = self._objective_and_gap(A, Z, admm.D)
            if len(rest := (gap > self.precise_gap * objective).nonzero()[:, 0]):
                Z[rest] = self._to_gap(A[rest], admm)
        if not self.refit:
            return Z
        Q = admm.correlations(A)
        return solve_on_support(Z, Q, admm.D, admm.G, 0.0, ROUNDS, keep_signs=self.nonnegative)

    def _least_objective(self, A: Tensor, admm: ADMM, accuracy: float) -> Tensor:
        """Return a lower bound of the summed objectives, within the relative ``accuracy``."""
        Q, base, V = admm.start(A)
        primal, dual = (A.new_full((A.shape[0],), value) for value in (torch.inf, 0.0))
        for wait in _waits(self.max_iter):
            V = admm.iterate(V, base, wait)
            objective, gap = self._objective_and_gap(A, admm.finish(V, Q), admm.D)
            primal, dual = torch.minimum(primal, objective), torch.maximum(dual, objective - gap)
            if (primal - dual).sum() <= accuracy * primal.sum():
                break
        return dual.sum()

    def _to_gap(self, A: Tensor, admm: ADMM) -> Tensor:
        """Iterate until each row's gap is at most ``precise_gap`` of its objective; finished rows leave the
        batch.

        Where atoms depend on each other, the system on a support may be singular and its solution worse than
        the codes it came from, so both are tried; after ``CRAWLING`` checks the exact codes are searched for
        as well.  The codes of the smallest gap are kept.
        """
        Z = A.new_zeros(A.shape[0], admm.D.shape[0])
        least, allowed = A.new_full((A.shape[0],), torch.inf), A.new_zeros(A.shape[0])
        Q, base, V = admm.start(A)
        open_rows = torch.arange(A.shape[0], device=A.device)
        for check, wait in enumerate(_waits(self.max_iter), start=1):
            V = admm.iterate(V, base, wait)
            ways = [admm.finish, admm.codes, admm.search]
            for way in ways if check >= CRAWLING else ways[:2]:
                if not len(open_rows):
                    return Z
                codes = way(V, Q)
                objective, gap = self._objective_and_gap(A, codes, admm.D)
                better = gap < least
                Z[open_rows[better]], least = codes[better], torch.minimum(gap, least)
                allowed = torch.where(better, self.precise_gap * objective, allowed)  # that of the codes kept
                unfinished = (least > allowed).nonzero()[:, 0]
                if len(unfinished) < len(open_rows):
                    A, Q, V, base, open_rows, least, allowed = (
                        x[unfinished] for x in (A, Q, V, base, open_rows, least, allowed)
                    )
        return Z


def _waits(max_iter: int) -> Iterator[int]:
    """Yield the iterations between checks of the gap, ``max_iter`` in all: each wait 1.5 times the last."""
    wait = FIRST_CHECK
    while max_iter > 0:
        yield min(wait, max_iter)
        max_iter, wait = max_iter - wait, wait + wait // 2
