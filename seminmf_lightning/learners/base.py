"""Base class of the learners: sums over rows in, a better dictionary out.

The estimator (one process, rows in memory) and the Lightning module (many processes, rows from disk) drive
the same object:

    D = learner.initialise(sample)
    for A in batches:
        learner.observe(A, D)       # adds this process's rows to learner.pending
        ...                         # many processes: pending <- its sum over processes
        learner.absorb()            # moves pending into the totals
        D = learner.improve(D)      # one solver step, from the totals alone
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from seminmf_lightning.core.discovery import name_of, spec_of
from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.core.processes import AtomShares, Processes
from seminmf_lightning.core.sums import Sums
from seminmf_lightning.encoders import Effort, Encoder
from seminmf_lightning.learners.recipe import Recipe
from seminmf_lightning.solvers import StatisticsSolver

LEAST_VARIATION = 1e-10
"""Variation of rows about their mean, as a share of their squares, below which atoms in float32 are too
coarse: at an offset of 1e5 spreads losses are those without an offset, at 1e6 three times as large."""

SMALL_VARIATION = 0.01
"""The same, below which a penalty may shrink the offset by more than the variation."""


class Learner(ABC):
    """Holds the sums over the data; never the dictionary, which the caller owns."""

    order_matters: ClassVar[bool]
    """Whether rows should come shuffled."""
    single_epoch: ClassVar[bool]
    """Whether further epochs add nothing."""
    dictionary_dtype: ClassVar[torch.dtype]
    row_state: ClassVar[tuple[str, ...]] = ()
    """Keys of the state that hold rows of this process, which a checkpoint gathers from all processes."""

    update_rows: int | None
    """Fewest rows per update of the dictionary, over all processes, unless the caller chooses."""
    pending: Sums
    """This process's rows since the last :meth:`absorb`."""
    total: Sums
    """Sums over the rows of all processes."""

    def __init__(self, recipe: Recipe, features: int, processes: Processes | None = None) -> None:
        self.recipe, self.features = recipe, features
        self.processes = processes or Processes()
        self.reset()

    def reset(self) -> None:
        """Forget all data: sums, counters, normaliser, tuned penalty."""
        self.normalizer = Normalizer()
        self.rows_seen = 0
        self.effort: Effort = ()
        """Work per row that the encoder was calibrated to; :meth:`Encoder.precise` starts from it."""
        self.replaced: int | None = None
        """Dead atoms given a new direction so far; None if the method replaces none."""

    @property
    def penalty(self) -> float:
        """Current weight of ``||z||_1``."""
        return self.recipe.l1_penalty

    @property
    def recent_l0(self) -> float | None:
        """Mean nonzeros per row of recent batches; None unless the penalty is tuned to a target."""
        return None

    @property
    def encoder(self) -> Encoder:
        """The encoder at the current penalty."""
        encoder: Encoder = self.recipe.encoder
        return encoder

    def plain_recipe(self) -> dict[str, Any]:
        """Return the recipe with the penalty as tuned, which encodes new rows as training did."""
        return self.recipe.plain() | {"l1_penalty": self.penalty, "encoder": spec_of(self.encoder)}

    def initialise(
        self, sample: Tensor, held_out: Tensor | None = None, rows: int | None = None,
        epochs: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Forget earlier data, fit the normaliser to raw rows ``sample`` (m, d), return the first D (k, d).

        ``held_out``, ``rows`` and ``epochs`` as in :meth:`attach_sample`.
        """
        device = next(iter(self.pending.tensors().values())).device
        self.reset()
        self.to_(device)
        self.attach_sample(sample, held_out=held_out, rows=rows, epochs=epochs)
        D = self.recipe.init.start(
            self.normalizer.apply(sample), self.recipe.nb_concepts,
            torch.Generator().manual_seed(self.recipe.seed), constraint=self.recipe.constraint,
            positive=self._needs_positive_start,
        )  # fmt: skip
        return self.prepare(D.to(self.dictionary_dtype))

    @property
    def _needs_positive_start(self) -> bool:
        solver = self.recipe.solver
        positive = isinstance(solver, StatisticsSolver) and solver.needs_positive_start
        return positive and self.recipe.constraint.nonnegative_atoms

    @property
    def steps_per_update(self) -> int:
        """Solver steps per update of the dictionary."""
        solver = self.recipe.solver
        return solver.steps_per_batch if isinstance(solver, StatisticsSolver) else 1

    def due(self) -> bool:
        """Whether the dictionary should be updated now; asked after every :attr:`update_rows` rows, and the
        same on all processes."""
        return True

    def updated(self, D: Tensor) -> Tensor:
        """Return the dictionary after an update with the rows of this process, D itself if none wait."""
        if not self.pending.tensors()["rows"]:
            return D
        self.absorb()
        return self.improve(D)

    def drop_own_rows(self) -> None:
        """Forget the rows since the last :meth:`absorb`, or those that have been absorbed."""
        self.pending.zero_()

    @abstractmethod
    def prepare(self, D: Tensor) -> Tensor:
        """Return the initial dictionary in the form that the method needs."""

    def attach_sample(
        self, sample: Tensor, normalizer: Normalizer | None = None, *, held_out: Tensor | None = None,
        rows: int | None = None, epochs: int | None = None,
    ) -> None:  # fmt: skip
        """Compute what is needed from raw rows ``sample`` (m, d); on resume, use the checkpoint's normaliser.

        Args:
            sample: rows that represent the data.
            normalizer: fitted to the sample if None.
            held_out: raw rows on which a penalty is tuned; the sample if None.
            rows: number of rows per epoch, if known.
            epochs: most epochs that follow, if there is a limit.
        """
        self.normalizer = normalizer or Normalizer.fit(sample, self.recipe.normalize)

    def warn_of_offset(self, normalised: Tensor, share: float) -> None:
        """Warn if rows vary by too little of their squares, beside a common offset, for D to represent."""
        shrunk = share < min(self.penalty**2, SMALL_VARIATION)
        if not (shrunk or share < LEAST_VARIATION):
            return
        if torch.equal(normalised, normalised[:1].expand_as(normalised)):
            return
        cause = (
            f"l1_penalty={self.penalty:g} shrinks the offset by more than that" if shrunk
            else "atoms of float32 cannot tell such rows apart"
        )  # fmt: skip
        warnings.warn(
            f"beside a common offset the rows vary by {share:.1e} of their squares, and {cause}: "
            "normalize=center removes the offset",
            stacklevel=3,
        )

    def to_(self, device: torch.device) -> None:
        """Move every sum to ``device``."""
        self.pending.to_(device)
        self.total.to_(device)
        self.normalizer = self.normalizer.to(device)

    @abstractmethod
    def observe(self, A: Tensor, D: Tensor) -> None:
        """Add raw rows ``A`` (n, d), n >= 0, to :attr:`pending`.

        Raises:
            FloatingPointError: a row holds NaN or Inf, and :attr:`pending` is unchanged; or one is too large,
                and rows before it may have been added.
        """

    @abstractmethod
    def absorb(self) -> None:
        """Move :attr:`pending`, by now summed over all processes, into the totals."""

    @abstractmethod
    def improve(self, D: Tensor) -> Tensor:
        """Return the dictionary after one solver step from the totals.

        Raises:
            FloatingPointError: it is not finite.
        """

    def solver_step(self, D: Tensor, S: Tensor, P: Tensor, **sharing: AtomShares) -> Tensor:
        """Return the solver's dictionary; a FloatingPointError names the cause of NaN or Inf."""
        signs, bounded = self.recipe.constraint, self.recipe.bounded
        stepped: Tensor = self.recipe.solver.step(D, S, P, constraint=signs, bounded=bounded, **sharing)
        if not stepped.sum().isfinite():  # a fortieth of the time of `isfinite().all()`
            finite = S.isfinite().all() and P.isfinite().all()
            solver = f"solver={name_of(self.recipe.solver)} returned"
            raise FloatingPointError(f"{solver if finite else 'the statistics of the codes hold'} NaN or Inf")
        return stepped

    @abstractmethod
    def end_epoch(self, D: Tensor) -> Tensor:
        """Return the dictionary after the method's work at the end of an epoch."""

    @abstractmethod
    def mean_squared_error(self, D: Tensor) -> float:
        """Return the training reconstruction loss: mean squared error per element, in squared data units."""

    @abstractmethod
    def unexplained(self, D: Tensor) -> float:
        """Return the training objective over that of a zero dictionary, ``||A||_F^2 / 2``; 0 if that is 0."""

    def optimality_gap(self, D: Tensor) -> float | None:
        """Return ``loss / bound - 1`` on the rows seen; None if no bound is known."""
        return None

    @abstractmethod
    def converged(self) -> bool:
        """Whether the relative decrease of the objective at the last check was at most ``tol``."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain numbers from which :meth:`load_state_dict` resumes bit for bit."""

    def whole_state(
        self, state: dict[str, Any], join: Callable[[Tensor, AtomShares], Tensor]
    ) -> dict[str, Any]:
        """Return a state whose tensors are whole: ``join`` gets those of which this process holds a share."""
        return state

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from ``state``."""
