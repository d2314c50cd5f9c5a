"""Tune the penalty to a number of nonzeros per row.

During an epoch the penalty follows the nonzeros of the batches, ``log penalty += GAIN log(nonzeros /
target)``; these are sums over all processes, so that every process has the same penalty.  At the end of an
epoch it is searched on held-out rows, with exact codes and a fixed dictionary; the ratio of held-out to
training nonzeros corrects the target of the next epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

INITIAL_PENALTY = 0.1
GAIN = 0.15
RECENT = 0.1  # weight of the newest batch in the mean number of nonzeros
CLOSE = 0.01  # relative distance from the target at which a search ends
USABLE = 0.05  # relative distance from the target at which training may end
TRIES = 12
LOWEST, HIGHEST = 1e-6, 1e3


class PenaltyTuner:
    """Keeps the penalty at which rows have ``target`` nonzeros on average.

    >>> tuner = PenaltyTuner(target=4)
    >>> tuner.search(lambda penalty: 2 / penalty)
    >>> round(tuner.penalty, 2), tuner.usable
    (0.5, True)
    """

    def __init__(self, target: float) -> None:
        self.target = target
        self.penalty = INITIAL_PENALTY
        self.bias = 1.0  # nonzeros per held-out row over nonzeros per training row, at the same penalty
        self.recent: float | None = None  # running mean over the batches
        self.held_out: float | None = None  # nonzeros when last counted on held-out rows

    @property
    def usable(self) -> bool:
        """Whether the held-out rows had the target number when last counted."""
        return self.held_out is not None and abs(self.held_out / self.target - 1) <= USABLE

    def follow(self, nonzeros: float) -> None:
        """Adjust the penalty to the mean number of nonzeros per row of a batch."""
        self.recent = nonzeros if self.recent is None else self.recent + RECENT * (nonzeros - self.recent)
        ratio = max(nonzeros, 0.1 * self.target) * self.bias / self.target
        self.penalty = min(max(self.penalty * ratio**GAIN, LOWEST), HIGHEST)

    def search(self, count: Callable[[float], float]) -> None:
        """Find the penalty at which the falling function ``count(penalty)`` is the target, by secants in
        logarithms, bisecting where a secant leaves the bracket."""
        nonzeros = count(self.penalty)
        if self.recent:
            self.bias = min(max(nonzeros / self.recent, 0.5), 2.0)
        low, high, slope, x = math.log(LOWEST), math.log(HIGHEST), -1.0, math.log(self.penalty)
        for _ in range(TRIES):
            error = math.log(max(nonzeros, 1e-3) / self.target)
            if abs(error) <= CLOSE:
                break
            low, high = (x, high) if error > 0 else (low, x)
            following = x - error / slope
            if not low < following < high:
                following = (low + high) / 2
            following = min(max(following, x - 2), x + 2)
            nonzeros, previous, before = count(math.exp(following)), error, x
            x = following
            change = math.log(max(nonzeros, 1e-3) / self.target) - previous
            slope = min(change / (x - before), -0.1) if x != before else slope
        self.penalty, self.held_out = math.exp(x), nonzeros

    def state_dict(self) -> dict[str, Any]:
        return {"penalty": self.penalty, "bias": self.bias, "recent": self.recent, "held_out": self.held_out}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
