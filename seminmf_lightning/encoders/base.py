"""What every encoder is: factor a dictionary once, then encode many batches.

Legend:  A (n, d) activations   Z (n, k) codes   D (k, d) dictionary
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

Encode = Callable[[Tensor], Tensor]
"""``A (n, d) -> Z (n, k)``, for one dictionary; any n, zero included."""
Effort = tuple[float, ...]


class Encoder(ABC):
    """Codes Z with A ~ Z D, for a dictionary given once."""

    default_for: ClassVar[str | None] = None
    """The problem that ``encoder=auto`` chooses this encoder for: ``penalised``, ``unpenalised``, or neither."""
    sparse: ClassVar[bool]
    """Whether most codes are exactly zero, so that they are worth storing as a sparse matrix."""

    def check(self, concepts: int, features: int) -> None:
        """Raise ValueError if dictionaries of this shape are not for this encoder."""

    def settle(self, D: Tensor, sample: Tensor, effort: Effort = ()) -> Effort:
        """How much work a row needs in training, found on a sample (m, d); plain numbers, kept in
        checkpoints.  The search begins at ``effort``, what was found last."""
        return ()

    @abstractmethod
    def training(self, D: Tensor, effort: Effort) -> Encode:
        """For a step of training: the same work for every row, whatever batch the row is in, so that any
        split of a batch over processes gives the same codes."""

    @abstractmethod
    def precise(self, D: Tensor, effort: Effort = ()) -> Encode:
        """For validation and for users: each row to the accuracy asked for.  Without the ``effort`` that
        training settled on, the first rows encoded settle it."""

    def with_limits(self, max_iter: int | None, tol: float | None) -> Encoder:
        """The same encoder stopped earlier or later, where it iterates at all; None leaves a limit as it
        is."""
        return self


class Penalised(Encoder):
    """An encoder whose codes have an l1 penalty, its argument ``l1_penalty``."""

    @abstractmethod
    def with_penalty(self, l1_penalty: float) -> Encoder:
        """The same encoder at another penalty."""
