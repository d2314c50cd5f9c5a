"""The interface of every initialisation: nonnegative unit atoms from a sample of rows and a seed.

Legend:  A (m, d) sample of normalised rows   C = A^T A (d, d)   D (k, d) dictionary
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Init(ABC):
    """Make the dictionary that training starts from."""

    @abstractmethod
    def start(self, A: Tensor, k: int, generator: torch.Generator, *, positive: bool = False) -> Tensor:
        """Return D (k, d) in float64, nonnegative, without zero atoms unless every row is zero.

        ``positive`` asks for no zero entry.  The same arguments give the same D in every process.
        """

    def refine(self, C: Tensor, k: int) -> Tensor | None:
        """Return an initial dictionary from the second moment of all rows, or None."""
        return None
