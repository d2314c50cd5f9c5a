"""What every metric here is: sums over rows in float64, so that the split into batches and processes does not
show."""

from __future__ import annotations

import torch
from torchmetrics import Metric


class SummedMetric(Metric):
    """A metric whose states are float64 sums over rows, added up over processes; batches may be empty.

    ``compute`` returns plain numbers and lists by name; what is not defined on the rows seen is NaN.
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False

    def add_sums(self, **shapes: tuple[int, ...]) -> None:
        """Declare states, all zero."""
        for name, shape in shapes.items():
            self.add_state(name, default=torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
