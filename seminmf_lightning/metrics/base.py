"""Base classes of the metrics: float64 sums over rows, whatever the split into batches and processes."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from seminmf_lightning.core.normalize import Normalizer


class Value(NamedTuple):
    """How tables show one value that a metric computes."""

    name: str
    meaning: str  # one line
    format: str = ".6g"
    per_concept: bool = False  # a list of k numbers


class Fitted(NamedTuple):
    """A finished dictionary and how it was fitted: the input of every metric."""

    D: Tensor  # (k, d)
    normalizer: Normalizer = Normalizer()
    least_squares: bool = False  # the codes are those of l1_penalty = 0
    other: Tensor | None = None  # a dictionary (k2, d) to compare with
    sign_is_free: bool = False  # an atom and its negative are the same concept
    other_sign_is_free: bool = False  # the same of an atom of D and one of ``other``


class SummedMetric(Metric):
    """A metric whose states are float64 sums over rows, added up over processes; batches may be empty.

    ``compute`` returns a number, or a list, for each of :attr:`values`; NaN where it is undefined.
    """

    values: ClassVar[tuple[Value, ...]]
    full_state_update = False
    higher_is_better = None
    is_differentiable = False

    def add_sums(self, **shapes: tuple[int, ...]) -> None:
        """Declare states by name and shape, all zero."""
        for name, shape in shapes.items():
            self.add_state(name, default=torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")


class DictionaryMetric(SummedMetric):
    """A metric of a finished dictionary, found by the name of its file; ``evaluate`` computes and shows it.

    ``update`` takes any of ``A`` (n, d), ``A_hat`` (n, d) in data units and ``Z`` (n, k), by these names.
    """

    def __init__(self, fitted: Fitted) -> None:
        super().__init__()

    @classmethod
    def applies(cls, fitted: Fitted) -> bool:
        """Whether the metric is defined for ``fitted``; if not, it is not reported."""
        return True

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Add a batch; a metric of the dictionary alone ignores it."""
