"""Uniform random atoms, independent of the data.

Legend:  A (m, d) sample of normalised rows   D (k, d) dictionary
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.inits.base import Init


@dataclass(frozen=True, kw_only=True)
class Random(Init):
    """Entries uniform in (0, 1], atoms scaled to length 1.

    >>> D = Random().start(torch.zeros(1, 3), 2, torch.Generator().manual_seed(0))
    >>> D.shape, bool((D > 0).all())
    (torch.Size([2, 3]), True)
    """

    def start(self, A: Tensor, k: int, generator: torch.Generator, *, positive: bool = False) -> Tensor:
        D = 1 - torch.rand(k, A.shape[1], generator=generator, dtype=torch.float64)
        return unit_atoms(D).to(A.device)
