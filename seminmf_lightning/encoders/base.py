"""The interface of every encoder: factor a dictionary once, then encode many batches.

Legend:  A (n, d) activations   Z (n, k) codes   D (k, d) dictionary
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from seminmf_lightning.core.checks import whole_number

Encode = Callable[[Tensor], Tensor]
"""``A (n, d) -> Z (n, k)`` for one dictionary; n may be 0."""
Effort = tuple[float, ...]
"""Work per row in training, as plain numbers whose meaning is the encoder's own."""


@dataclass(frozen=True, kw_only=True)
class Encoder(ABC):
    """Compute codes Z with ``A ~ Z D``.

    A concrete encoder is a frozen keyword-only dataclass whose fields are its settings.
    """

    nonnegative: bool = False
    """Whether codes must be nonnegative; the setting ``nonnegative`` of the whole problem decides."""

    supports_nonnegative: ClassVar[bool] = False
    """Whether the method can keep codes nonnegative."""

    default_for: ClassVar[str | None] = None
    """The problem for which ``encoder=auto`` chooses this encoder: ``penalised``, ``unpenalised`` or None."""
    formerly: ClassVar[Mapping[str, Any]] = {}
    """What the settings that an older file lacks were before they could be set."""
    sparse: ClassVar[bool]
    """Whether most codes are exactly zero, so that a sparse matrix stores them best."""

    def check(self, concepts: int, features: int) -> None:
        """Raise a ValueError if dictionaries of this shape do not suit the encoder."""

    def calibrate(self, D: Tensor, sample: Tensor, effort: Effort = ()) -> Effort:
        """Measure on a sample (m, d) how much work each row needs in training; checkpoints store the result.

        ``effort`` is the previous result, from which a search may start.
        """
        return ()

    @abstractmethod
    def training(self, D: Tensor, effort: Effort) -> Encode:
        """Return the encoding for training: the same work for every row, whatever batch it is in, so that
        any split of a batch over processes gives the same codes."""

    @abstractmethod
    def precise(self, D: Tensor, effort: Effort = ()) -> Encode:
        """Return the encoding for validation and users: every row to the requested accuracy.

        Without the ``effort`` of training, the first rows encoded calibrate it.
        """

    def with_limits(self, max_iter: int | None, tol: float | None) -> Encoder:
        """Return this encoder with other iteration limits, if it has any; None keeps a limit."""
        return self


@dataclass(frozen=True, kw_only=True)
class FixedNonzeros(Encoder):
    """An encoder whose rows have a number of nonzeros at most."""

    nonzeros: int = 16
    """Nonzeros per row; at most min(k, d)."""

    sparse: ClassVar[bool] = True
    supports_nonnegative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        whole_number("encoder.nonzeros", self.nonzeros, 1)

    def check(self, concepts: int, features: int) -> None:
        if self.nonzeros > min(concepts, features):
            raise ValueError(
                f"encoder.nonzeros={self.nonzeros} is more than min(nb_concepts={concepts}, "
                f"features={features}); lower it"
            )

    def training(self, D: Tensor, effort: Effort) -> Encode:
        return self.precise(D)


@dataclass(frozen=True, kw_only=True)
class Penalised(Encoder):
    """An encoder whose codes have an l1 penalty."""

    @abstractmethod
    def with_penalty(self, l1_penalty: float) -> Encoder:
        """Return this encoder with another penalty."""
