"""What every starting dictionary is: nonnegative unit atoms from a sample of rows and a seed.

Legend:  A (m, d) sample of normalised rows   C = A^T A (d, d)   D (k, d)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Init(ABC):
    """Makes the dictionary that training starts from."""

    @abstractmethod
    def start(
        self, A: Tensor, concepts: int, generator: torch.Generator, *, positive: bool = False
    ) -> Tensor:
        """D (concepts, d) float64, nonnegative, no atom zero unless the rows are; with ``positive`` no entry
        is zero.

        The same arguments give the same D on every process.
        """

    def refine(self, C: Tensor, concepts: int) -> Tensor | None:
        """A start from the exact second moment, once the whole data has been seen; None where the method has
        none."""
        return None
