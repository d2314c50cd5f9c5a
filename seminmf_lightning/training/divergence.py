"""Stop training that diverges, say where and why, and name the checkpoint to return to.

The checked values are equal on every process (sums over all of them, and the dictionary computed from these),
so that all stop at the same step without communicating.

Legend:  D (k, d) dictionary   S = Z^T Z or C = A^T A, the learner's Gram matrix of sums
"""

from __future__ import annotations

import math
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from seminmf_lightning.learners import Learner

SLACK = 0.01
"""Share by which the objective may exceed that of zeros: training codes are exact to 0.1 %."""
KEPT = 0.5
"""Share of the best epoch's explained part that a later epoch must keep.  Whole epochs are compared, because
single batches differ and rows may come sorted."""
NOTABLE = 0.05
"""Explained part of the best epoch below which there is nothing to lose."""
FEWEST_ROWS = 100
"""Rows of an epoch below which chance decides what it explains, so that it is not compared."""
NORM_SLACK = 1e-4


class DivergenceError(FloatingPointError):
    """No working solver could have produced this objective, these sums or this dictionary."""


class Guard:
    """Checks one training run; its state is small and need not be in checkpoints."""

    def __init__(self) -> None:
        self.best_loss, self.best_step = math.inf, 0
        self._best_epoch = 0.0  # explained part of the objective, mean over the checks of an epoch
        self._explained: list[float] = []
        self._rows_before = 0

    def check(self, learner: Learner, D: Tensor, step: int) -> str | None:
        """Return what is wrong after ``step`` updates, or None."""
        if problem := symptom(learner, D):
            return problem
        loss = learner.mean_squared_error(D)
        if loss < self.best_loss:
            self.best_loss, self.best_step = loss, step
        return None

    def check_progress(self, learner: Learner, D: Tensor, step: int, *, end_of_epoch: bool) -> str | None:
        """Do :meth:`check` during training, and compare each epoch with the best one before."""
        if problem := self.check(learner, D, step):
            return problem
        self._explained.append(1 - learner.unexplained(D))
        if not end_of_epoch:
            return None
        explained, self._explained = sum(self._explained) / len(self._explained), []
        rows, self._rows_before = learner.rows_seen - self._rows_before, learner.rows_seen
        if rows < FEWEST_ROWS:
            return None
        if explained < KEPT * self._best_epoch and self._best_epoch > NOTABLE:
            return (
                f"this epoch explained {explained:.3g} of the objective, "
                f"an earlier one {self._best_epoch:.3g}"
            )
        self._best_epoch = max(self._best_epoch, explained)
        return None

    def report(
        self, problem: str, learner: Learner, D: Tensor, *, step: int, where: str, checkpoint: Path | None
    ) -> DivergenceError:
        """Return the error to raise."""
        loss = learner.mean_squared_error(D)
        best = "not measured before"
        if not math.isinf(self.best_loss):
            best = f"best {self.best_loss:.4g} at step {self.best_step}"
        advice = "No checkpoint has been written yet: start again"
        if checkpoint is not None:
            advice = f"The newest checkpoint was written before: resume with ckpt_path={checkpoint}"
        return DivergenceError(
            f"training has diverged at step {step} ({where}): {problem}.\n"
            f"Loss {loss:.4g}, {best}; {describe(learner, D)}.\n"
            f"{advice}, with another solver= if this one is the cause. Nothing of this state was saved."
        )


def symptom(learner: Learner, D: Tensor) -> str | None:
    """Return what no working solver makes of finite rows, in D or the sums; None if nothing is wrong."""
    for name, sums in learner.total.tensors().items():
        if not sums.sum().isfinite():
            return f"the sums '{name}' hold NaN or Inf"
    if not D.sum().isfinite() and (bad := int((~D.isfinite()).any(dim=1).sum())):
        return f"{bad} of {len(D)} atoms hold NaN or Inf"
    if learner.recipe.constraint.nonnegative_atoms and float(D.min()) < 0:
        negative = int((D < 0).any(dim=1).sum())
        return f"{negative} of {len(D)} atoms have negative entries, down to {float(D.min()):.3g}"
    longest = float(D.norm(dim=1).max())
    if learner.recipe.bounded and longest > 1 + NORM_SLACK:
        return f"an atom has norm {longest:.3g}; the penalty needs norms of at most 1"
    if not learner.rows_seen:
        return None
    if not math.isfinite(learner.mean_squared_error(D)):
        return "the loss is not finite"
    if (share := learner.unexplained(D)) > 1 + SLACK:
        return f"the objective is {share:.3g} times that of a dictionary of zeros"
    return None


def describe(learner: Learner, D: Tensor) -> str:
    """Return the numbers that help most to find the cause."""
    gram = learner.total.tensors().get("gram")
    condition = ""
    if gram is not None and len(gram) == gram.shape[1]:
        values = torch.linalg.eigvalsh(gram) if gram.isfinite().all() else gram.new_full((1,), torch.nan)
        condition = f"condition of the Gram matrix {float(values[-1] / values[0].clamp(min=0)):.2g}, "
    dead = int((~(D.abs().amax(dim=1) > 0)).sum())
    return (
        f"largest |D| {float(D.abs().max()):.4g}, {dead} dead atoms, "
        f"{condition}{learner.rows_seen:,} rows seen, penalty {learner.penalty:.4g}"
    )


def newest_checkpoint(trainer: lightning.Trainer) -> Path | None:
    """Return the newest checkpoint in the folders of the trainer's checkpoint callbacks."""
    callbacks = [one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)]
    folders = {Path(callback.dirpath) for callback in callbacks if callback.dirpath}
    files = [file for folder in folders for file in folder.glob("*.ckpt")]
    return max(files, key=lambda file: file.stat().st_mtime, default=None)
