"""Uniform random atoms, independent of the data.

Legend:  A (m, d) sample of normalised rows   D (k, d) dictionary
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seminmf_lightning.core.constraints import Constraint
from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.inits.base import Init


@dataclass(frozen=True, kw_only=True)
class Random(Init):
    """Entries uniform in (0, 1], or normal where atoms are free in sign; atoms scaled to length 1.

    >>> from seminmf_lightning.core.constraints import CONSTRAINTS
    >>> generator = torch.Generator().manual_seed(0)
    >>> D = Random().start(torch.zeros(1, 3), 2, generator, constraint=CONSTRAINTS["both"])
    >>> D.shape, bool((D > 0).all())
    (torch.Size([2, 3]), True)
    """

    def start(
        self, A: Tensor, k: int, generator: torch.Generator, *, constraint: Constraint, positive: bool = False
    ) -> Tensor:
        return unit_atoms(constraint.random_atoms(k, A.shape[1], generator)).to(A.device)
