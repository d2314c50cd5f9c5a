"""Training that goes wrong stops, says where and why, and names the checkpoint to go back to.

What is looked at is the same on every process, sums over all of them and the dictionary that follows from
these, so that all stop at the same step without a message.

Legend:  D (k, d) dictionary   S = Z^T Z or C = A^T A, the learner's Gram matrix of sums
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seminmf_lightning.learners import Learner

SLACK = 0.01
"""Share by which the objective may be above that of the zero dictionary: codes of training are exact to 0.1
%."""
KEPT = 0.5
"""Share of the best pass's explained part that a later pass must keep.  A whole pass is compared with a whole
pass, because single batches differ and rows may come sorted."""
NOTABLE = 0.05
"""Explained part of a best pass below which there is nothing to lose."""
NORM_SLACK = 1e-4


class DivergenceError(FloatingPointError):
    """The objective, the sums or the dictionary are such as no working solver makes of finite rows."""


class Guard:
    """Watches one training run; a few numbers of memory, no state that a checkpoint must hold."""

    def __init__(self) -> None:
        self.best_loss, self.best_step = math.inf, 0
        self._best_pass = 0.0  # explained part of the objective, mean over the looks of a pass
        self._looks: list[float] = []

    def check(self, learner: Learner, D: Tensor, step: int) -> str | None:
        """What is wrong after ``step`` updates; None where nothing is."""
        if found := symptom(learner, D):
            return found
        loss = learner.mean_squared_error(D)
        if loss < self.best_loss:
            self.best_loss, self.best_step = loss, step
        return None

    def look(self, learner: Learner, D: Tensor, step: int, *, end_of_pass: bool) -> str | None:
        """:meth:`check` in the course of passes, which it compares with each other."""
        if found := self.check(learner, D, step):
            return found
        self._looks.append(1 - learner.unexplained(D))
        if not end_of_pass:
            return None
        explained, self._looks = sum(self._looks) / len(self._looks), []
        if explained < KEPT * self._best_pass and self._best_pass > NOTABLE:
            return (
                f"this pass explained {explained:.3g} of the objective, an earlier one {self._best_pass:.3g}"
            )
        self._best_pass = max(self._best_pass, explained)
        return None

    def report(
        self, found: str, learner: Learner, D: Tensor, *, step: int, place: str, checkpoint: Path | None
    ) -> DivergenceError:
        """The error to raise."""
        loss = learner.mean_squared_error(D)
        best = (
            "none looked at before"
            if math.isinf(self.best_loss)
            else f"best {self.best_loss:.4g} at step {self.best_step}"
        )
        way = (
            f"The newest checkpoint is from before: go on with ckpt_path={checkpoint}"
            if checkpoint is not None
            else "No checkpoint has been written yet: start anew"
        )
        return DivergenceError(
            f"training has diverged at step {step} ({place}): {found}.\n"
            f"Loss {loss:.4g}, {best}; {describe(learner, D)}.\n"
            f"{way}, with another solver= where this one is to blame. Nothing of this state was saved."
        )


def symptom(learner: Learner, D: Tensor) -> str | None:
    """What no working solver makes of finite rows, in D and in the sums as they are."""
    for name, sums in learner.total.tensors().items():
        if not sums.sum().isfinite():
            return f"the sums '{name}' hold NaN or Inf"
    if not D.sum().isfinite() and (bad := int((~D.isfinite()).any(dim=1).sum())):
        return f"{bad} of {len(D)} atoms hold NaN or Inf"
    if float(D.min()) < 0:
        return f"{int((D < 0).any(dim=1).sum())} of {len(D)} atoms have negative entries, down to {float(D.min()):.3g}"
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
    """The numbers a person asks for first."""
    gram, known = (
        learner.total.tensors()["gram"],
        f"{learner.rows_seen:,} rows seen, penalty {learner.penalty:.4g}",
    )
    values = torch.linalg.eigvalsh(gram) if gram.isfinite().all() else gram.new_full((1,), torch.nan)
    condition = float(values[-1] / values[0].clamp(min=0))
    dead = int((~(D.abs().amax(dim=1) > 0)).sum())
    return f"largest |D| {float(D.abs().max()):.4g}, {dead} dead atoms, condition of the Gram matrix {condition:.2g}, {known}"


def newest_checkpoint(trainer: Any) -> Path | None:
    """The newest file beside those that the trainer's checkpoint callbacks write."""
    folders = {
        Path(callback.dirpath)
        for callback in trainer.checkpoint_callbacks
        if getattr(callback, "dirpath", None)
    }
    files = [file for folder in folders for file in folder.glob("*.ckpt")]
    return max(files, key=lambda file: file.stat().st_mtime, default=None)
