"""Training metrics by TensorBoard tag."""

from __future__ import annotations

import math
import time

from torch import Tensor

from seminmf_lightning.learners import Learner

PROGRESS_BAR = {
    "train/reconstruction_loss": "loss",
    "train/optimality_gap": "gap",
    "train/l0": "l0",
    "train/l1_penalty": "penalty",
    "train/rows_per_second": "rows/s",
}
"""Metrics that the progress bar shows, and their names there."""


class TrainingMetrics:
    """Collects metrics on request; the rate refers to the time since the last request.

    Attributes:
        step: updates at the last request; -1 before the first.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner, self.step = learner, -1
        self._time, self._rows = time.monotonic(), learner.rows_seen

    def take(self, D: Tensor, step: int, *, certify: bool) -> dict[str, float]:
        """Return metrics of D (k, d) after ``step`` updates; ``certify`` adds the gap to the bound (slow)."""
        learner, self.step = self.learner, step
        metrics = {"train/reconstruction_loss": learner.mean_squared_error(D)}
        if certify and (gap := learner.optimality_gap(D)) is not None:
            metrics["train/optimality_gap"] = gap
        now, rows = time.monotonic(), learner.rows_seen
        if rows > self._rows and now > self._time:
            metrics["train/rows_per_second"] = (rows - self._rows) / (now - self._time)
            self._time, self._rows = now, rows
        if learner.recipe.target_l0 is not None:
            metrics["train/l1_penalty"] = learner.penalty
            if learner.recent_l0 is not None:
                metrics["train/l0"] = learner.recent_l0
        if learner.replaced is not None:
            metrics["train/replaced_atoms"] = float(learner.replaced)
        # There is no loss before the first batch.
        return {tag: value for tag, value in metrics.items() if not math.isnan(value)}
