"""The interface of every initialisation: unit atoms from a sample of rows and a seed.

Legend:  A (m, d) sample of normalised rows   C = A^T A (d, d)   D (k, d) dictionary
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from seminmf_lightning.core.constraints import Constraint
from seminmf_lightning.core.linalg import unit_atoms

FLOOR = 0.01
"""Share of an atom's mean that is added to it if no entry may be zero."""


@dataclass(frozen=True, kw_only=True)
class Init(ABC):
    """Make the dictionary that training starts from."""

    @abstractmethod
    def start(
        self, A: Tensor, k: int, generator: torch.Generator, *, constraint: Constraint, positive: bool = False
    ) -> Tensor:
        """Return unit atoms D (k, d) of the right signs in float64, none zero unless no row has a direction.

        ``positive`` asks nonnegative atoms for no zero entry.  The same arguments give the same D in every
        process.
        """

    def refine(self, C: Tensor, k: int, constraint: Constraint) -> Tensor | None:
        """Return an initial dictionary from the second moment of all rows, or None."""
        return None


def without_zeros(D: Tensor) -> Tensor:
    """Return nonnegative atoms with their entries lifted above zero, and length 1."""
    return unit_atoms(D + FLOOR * D.mean(dim=1, keepdim=True))
