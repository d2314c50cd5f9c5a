"""Decide when training updates the dictionary, logs, and ends an epoch."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol, runtime_checkable

import lightning

from seminmf_lightning.learners import Learner

UPDATES_PER_EPOCH = 16
"""Updates of D in an epoch whose sums are exact in the end: they show the loss fall, and each costs an
all-reduce."""


class Moment(NamedTuple):
    """What to do at one training batch, apart from adding its rows."""

    update: bool
    """Update the dictionary with this batch."""
    end_of_data: bool
    """It is the last batch of the epoch."""
    log: bool
    """Log metrics, however recently that was done."""


class Schedule(NamedTuple):
    """Which batches of an epoch update the dictionary.

    >>> [Schedule(batches=5, update_every=2).at(index).update for index in range(5)]
    [False, True, False, True, True]
    >>> [Schedule(math.inf, update_every=None).at(index).update for index in range(5)]
    [True, True, False, True, False]
    """

    batches: float
    """Batches per epoch; inf if unknown."""
    update_every: int | None
    """Batches per update; None: update after 1, 2, 4, 8, ... batches."""
    log_updates: bool = False

    @classmethod
    def for_learner(cls, learner: Learner, batches: float, batch_rows: int | None) -> Schedule:
        """Return the schedule for an epoch of ``batches`` batches of ``batch_rows`` rows."""
        chosen = learner.recipe.solver.update_every
        if chosen is not None:
            return cls(batches, chosen)
        if learner.update_rows is not None:
            return cls(batches, 1 if batch_rows is None else max(1, learner.update_rows // batch_rows))
        every = None if math.isinf(batches) else max(1, int(batches) // UPDATES_PER_EPOCH)
        return cls(batches, every, log_updates=learner.single_epoch and every != 1)

    def at(self, index: int, *, last: bool = False) -> Moment:
        """Return what to do at batch ``index`` of the epoch; ``last``: the loader has no further batch."""
        number = index + 1
        end_of_data = last or number >= self.batches
        due = number & index == 0 if self.update_every is None else number % self.update_every == 0
        update = due or end_of_data
        return Moment(update, end_of_data, log=update and self.log_updates)


def refuse_without_epochs(trainer: lightning.Trainer) -> None:
    """Raise ValueError where ``trainer.fit`` would end before its first batch, with D as initialised."""
    limits = {
        "max_epochs": (trainer.max_epochs, trainer.current_epoch),
        "max_steps": (trainer.max_steps, trainer.global_step),
    }
    for name, (limit, done) in limits.items():
        if limit is not None and 0 <= limit <= done:
            cure = "give a larger one" if not done else f"this trainer has done {done}; make a new Trainer"
            raise ValueError(f"trainer.{name}={limit} leaves nothing to train on: {cure}")


@runtime_checkable
class SolverStepsHook(Protocol):
    """A callback that is also called between solver steps, when all data has been seen."""

    def on_solver_steps(self, trainer: lightning.Trainer, done: int, limit: int) -> None:
        """After ``done`` of at most ``limit`` steps; may save a checkpoint, or raise to end the run."""
