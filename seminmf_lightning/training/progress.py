"""Figures of a run while it trains, by TensorBoard tag."""

from __future__ import annotations

import math
import time

from torch import Tensor

from seminmf_lightning.learners import Learner

PROGRESS = {
    "train/reconstruction_loss": "loss",
    "train/optimality_gap": "gap",
    "train/rows_per_second": "rows/s",
}
"""What the progress bar shows, and how it calls it."""


class TrainingFigures:
    """Taken now and then; the rate is that since the last time.

    Attributes:
        step: at which figures were last taken; -1 before.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner, self.step = learner, -1
        self._taken, self._rows = time.monotonic(), learner.rows_seen

    def take(self, D: Tensor, step: int, *, certify: bool) -> dict[str, float]:
        """The figures of D (k, d) after ``step`` updates; the gap to the bound, which takes a while, if
        ``certify``."""
        learner, self.step = self.learner, step
        figures = {"train/reconstruction_loss": learner.mean_squared_error(D)}
        if certify and (gap := learner.optimality_gap(D)) is not None:
            figures["train/optimality_gap"] = gap
        now, rows = time.monotonic(), learner.rows_seen
        if rows > self._rows and now > self._taken:
            figures["train/rows_per_second"] = (rows - self._rows) / (now - self._taken)
            self._taken, self._rows = now, rows
        if learner.recipe.target_l0 is not None:
            figures["train/l1_penalty"] = learner.penalty
        if learner.replaced is not None:
            figures["train/replaced_atoms"] = float(learner.replaced)
        return {
            tag: value for tag, value in figures.items() if not math.isnan(value)
        }  # no loss before the first batch
