"""l1_penalty = 0: the data enters through its second moment alone, so that one epoch is exact.

For given D the best codes are Z = A D^+, hence Z^T Z = X^T Q^T C Q X and Z^T A = X^T Q^T C with D^+ = Q X:
every solver step is full-batch semi-NMF at a cost that does not depend on the number of rows.

Legend:  C = A^T A (d, d)   D (k, d)   Q (d, r)   X (r, k)   S = Z^T Z (k, k)   P = Z^T A (k, d)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from seminmf_lightning.core.constraints import Constraint
from seminmf_lightning.core.linalg import RowSpace, float32_unit_atoms, idle_atoms, row_space, unit_atoms
from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.core.objective import ROUNDING, eckart_young_bound, optimality_gap
from seminmf_lightning.core.sums import BLOCK_ROWS, NARROW, SecondMoment
from seminmf_lightning.learners.base import Learner

STEPS_BETWEEN_CHECKS = 10
PLAIN_SCALES = (1e-8, 1e8)
"""Scales at which squares of raw rows stay in the range of float32, so that rows need no scaled copy."""
SPARE_BITS = 5
"""Headroom in bits before the last digit of a sum depends on the order of rows."""

BLOCK = 1024
"""Rows that fit a processor's cache in float64."""


class Reduced(NamedTuple):
    """The problem at one dictionary with the codes eliminated."""

    D: Tensor
    error: float  # ||A - Z D||_F^2, normalised
    space: RowSpace
    projected: Tensor  # Q^T C (r, d)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return S (k, k) and P (k, d) of the best codes for D."""
        P = self.space.to_codes.T @ self.projected
        S = (P @ self.space.basis) @ self.space.to_codes
        return (S + S.T) / 2, P


class ExactLearner(Learner):
    """Exact semi-NMF on C.  Until more rows have been seen than the sample has, the sample's C is used.

    Atoms have length 1, because lengths mean nothing without a penalty.  Their entries are float32 numbers
    held in float64: the objective is that of the saved dictionary, even if nearly collinear
    atoms magnify rounding.
    """

    order_matters: ClassVar[bool] = False
    single_epoch: ClassVar[bool] = True
    dictionary_dtype: ClassVar[torch.dtype] = torch.float64

    update_rows: int | None = None

    pending: SecondMoment
    total: SecondMoment
    _reduced: Reduced | None
    _bound: float | None
    _checked_error: float | None
    _converged: bool

    def reset(self) -> None:
        super().reset()
        self.pending = SecondMoment.empty(self.features)
        self.total = SecondMoment.empty(self.features)
        self._sample, self._sample_rows = torch.empty(0, self.features), 0
        self._preview: SecondMoment | None = None
        self._factor, self._grid = 1.0, 0.0
        self._spread_share = 1.0  # variation about the mean over sum of squares, in the sample
        self._float32_products, self._rows_per_product = False, 1
        self._warned = False
        self._reset_cache()

    def prepare(self, D: Tensor) -> Tensor:
        return float32_unit_atoms(D)

    def attach_sample(
        self, sample: Tensor, normalizer: Normalizer | None = None, *, held_out: Tensor | None = None,
        rows: int | None = None, epochs: int | None = None,
    ) -> None:  # fmt: skip
        super().attach_sample(sample, normalizer)
        normalised = self.normalizer.apply(sample)
        self._sample, self._sample_rows, self._preview = normalised, len(normalised), None
        squares, variation = squares_and_variation(normalised)
        low, high = PLAIN_SCALES
        raw = self.normalizer.mean is None and low < self.normalizer.scale < high
        # A power of two leaves the 24 bits of float32 products unchanged; absorb() applies the rest.
        self._factor = 2.0 ** -round(math.log2(self.normalizer.scale)) if raw else 0.0
        self._grid = 0.0
        if rows is not None and 0 < squares < math.inf:
            bits = math.ceil(math.log2(squares / len(sample) * rows)) + SPARE_BITS
            self._grid = 2.0 ** (bits - 53)
        self._spread_share = variation / squares if squares else 1.0
        self.warn_of_offset(normalised, self._spread_share)
        self._float32_products = self.features >= NARROW and sample.dtype != torch.float64
        self._reset_cache()

    def to_(self, device: torch.device) -> None:
        super().to_(device)
        self._sample = self._sample.to(device)
        if self._preview is not None:
            self._preview.to_(device)
        self._reset_cache()

    def observe(self, A: Tensor, D: Tensor) -> None:
        if len(A):
            self._rows_per_product = min(len(A), BLOCK_ROWS)
        if not self._factor:
            A = self.normalizer.apply(A)
        try:
            self.pending.add_rows_(A, self._factor or 1.0, self._grid)
        except FloatingPointError:  # a square beyond the range of A's type, unless a row itself is not finite
            self.pending.add_rows_(A.double(), self._factor or 1.0, self._grid)

    def absorb(self) -> None:
        self.rows_seen += int(self.pending.rows)
        if self._factor:
            self.pending.gram.mul_((self._factor * self.normalizer.scale) ** -2)
        self.total.add_(self.pending)
        if self.pending.rows > 0 and self.total.rows >= self._sample_rows:
            self._reset_cache()
            self._sample, self._sample_rows, self._preview = self._sample[:0].clone(), 0, None
        self.pending.zero_()

    @property
    def moment(self) -> SecondMoment:
        """C of the rows seen or of the sample, whichever has more rows.

        That of the sample is summed when it is first needed: a pass that reads all rows first never does.
        """
        if self.total.rows >= self._sample_rows:
            return self.total
        if self._preview is None:
            self._preview = SecondMoment.empty(self.features, self._sample.device)
            self._preview.add_rows_(self._sample.double())
            self._sample = self._sample[:0].clone()
        return self._preview

    def improve(self, D: Tensor) -> Tensor:
        before = self._reduce(D)
        D = before.D
        if before.error <= ROUNDING * float(self.moment.gram.trace()):  # exact to the last digit: k >= rank A
            self._note(before.error)
            return before.D
        if before.space.basis.shape[1] < min(D.shape):
            D = replace_idle_atoms(D, self.moment.gram, self.recipe.constraint)
        S, P = (before if D is before.D else self._compute(D)).statistics()
        after = self._compute(float32_unit_atoms(self.solver_step(D, S, P)))
        # Collinear atoms magnify rounding: a step counts only if the recomputed objective did not rise.
        self._reduced = after if after.error <= before.error else before
        self._note(self._reduced.error)
        return self._reduced.D

    def end_epoch(self, D: Tensor) -> Tensor:
        recipe, C = self.recipe, self.moment.gram
        if recipe.constraint.sign_is_free:
            refined: Tensor | None = principal_components(C, D)
        else:
            refined = recipe.init.refine(C, recipe.nb_concepts, recipe.constraint)
        if refined is None or refined.shape != D.shape:
            return D
        candidate, current = self._compute(float32_unit_atoms(refined.to(D))), self._reduce(D)
        self._reduced = candidate if candidate.error < current.error else current
        return self._reduced.D

    def mean_squared_error(self, D: Tensor) -> float:
        rows = max(1.0, float(self.moment.rows))
        return self._reduce(D).error / (rows * self.features) * self.normalizer.scale**2

    def unexplained(self, D: Tensor) -> float:
        total = float(self.moment.gram.trace())
        return self._reduce(D).error / total if total else 0.0

    def optimality_gap(self, D: Tensor) -> float | None:
        if self._bound is None:
            self._bound = float(eckart_young_bound(self.moment.gram, self.recipe.nb_concepts))
        spread = self._spread_share * float(self.moment.gram.trace())
        gap = optimality_gap(
            self._reduce(D).error, self._bound, self._rounding(), spread,
            attainable_zero=self.recipe.nb_concepts >= self.features,
        )  # fmt: skip
        if gap is None and not self._warned:
            self._warned = True
            cure = "" if self.normalizer.mean is not None else "; normalize=center keeps more digits"
            warnings.warn(
                f"no optimality gap can be certified: the rows vary by {self._spread_share:.1e} of "
                f"their squares, and the least possible loss is lost in the rounding of sums{cure}",
                stacklevel=2,
            )
        return gap

    def _rounding(self) -> float:
        """Return the largest rounding of a squared error from C: of float64, of products, of the grid."""
        squares, rows = float(self.moment.gram.trace()), float(self.moment.rows)
        if self.moment is not self.total:
            return ROUNDING * squares
        precision = torch.finfo(torch.float32).eps if self._float32_products else ROUNDING
        return precision * squares + self._grid * math.sqrt(self.features * rows / self._rows_per_product)

    def converged(self) -> bool:
        return self._converged

    def state_dict(self) -> dict[str, Any]:
        return {
            "total": self.total.tensors(),
            "pending": self.pending.tensors(),
            "rows_seen": self.rows_seen,
            "steps": self._steps,
            "checked_error": self._checked_error,
            "converged": self._converged,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._reset_cache()
        self.total.load_(state["total"])
        self.pending.load_(state["pending"])
        self.rows_seen = state["rows_seen"]
        self._steps, self._checked_error = state["steps"], state["checked_error"]
        self._converged = state["converged"]

    def _reset_cache(self) -> None:
        """Drop what was computed from another C, including the state of convergence."""
        self._reduced, self._bound = None, None
        self._steps, self._checked_error, self._converged = 0, None, False

    def _note(self, error: float) -> None:
        """Count a step, and compare the error with that of the last check every ``STEPS_BETWEEN_CHECKS``."""
        self._steps += 1
        if self._steps % STEPS_BETWEEN_CHECKS == 0:
            previous, self._checked_error = self._checked_error, error
            self._converged = previous is not None and previous - error <= self.recipe.tol * previous

    def _reduce(self, D: Tensor) -> Reduced:
        if self._reduced is None or not torch.equal(self._reduced.D, D):
            self._reduced = self._compute(D)
        return self._reduced

    def _compute(self, D: Tensor) -> Reduced:
        C = self.moment.gram
        space = row_space(D)
        projected = space.basis.T @ C
        error = float((C.trace() - (projected * space.basis.T).sum()).clamp(min=0))
        return Reduced(D, error, space, projected)


def squares_and_variation(A: Tensor) -> tuple[float, float]:
    """Return the sum of squares of rows A (n, d), and that of their differences from the mean row.

    >>> squares_and_variation(torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
    (18.0, 2.0)
    """
    # Differences from nearly the mean lose no digits to an offset.
    near = A[:BLOCK].double().mean(dim=0)
    squares, around, total = 0.0, 0.0, torch.zeros_like(near)
    for rows in A.split(BLOCK):  # in float64, but never all of them at once
        exact = rows.double()
        squares += float(exact.reshape(-1) @ exact.reshape(-1))
        exact = exact - near
        around += float(exact.reshape(-1) @ exact.reshape(-1))
        total += exact.sum(dim=0)
    return squares, max(0.0, around - float(total @ total) / max(1, len(A)))


def principal_components(C: Tensor, D: Tensor) -> Tensor:
    """Return the first k eigenvectors of C, largest first, the sign such that the largest entry is positive.

    No dictionary has a lower error (Eckart & Young, 1936).  Atoms beyond the d-th stay those of D (k, d).
    """
    V = torch.linalg.eigh(C).eigenvectors.flip(1).T[: len(D)]
    largest = V.gather(1, V.abs().argmax(dim=1, keepdim=True))
    return torch.cat([V * largest.sign(), D[len(V) :]])


def replace_idle_atoms(D: Tensor, C: Tensor, constraint: Constraint) -> Tensor:
    """Give idle atoms a direction outside the dictionary's row space; the objective can only fall.

    The columns of the residual's second moment ``(I - Q Q^T) C (I - Q Q^T)`` with the largest diagonal; their
    positive part if atoms are nonnegative.
    """
    idle = idle_atoms(D).nonzero()[:, 0]
    if not len(idle):
        return D
    basis = row_space(D).basis
    left = C - basis @ (basis.T @ C)
    residual = left - (left @ basis) @ basis.T
    count = min(len(idle), C.shape[0])
    worst = residual.diagonal().topk(count).indices
    D = D.clone()
    D[idle[:count]] = unit_atoms(constraint.project_atoms(residual[worst], bounded=False)).to(D)
    return D
