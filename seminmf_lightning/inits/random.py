"""Uniform random atoms: a start that knows nothing of the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.inits.base import Init


@dataclass(frozen=True, kw_only=True)
class Random(Init):
    """Entries uniform in (0, 1], atoms scaled to length 1."""

    def start(
        self, A: Tensor, concepts: int, generator: torch.Generator, *, positive: bool = False
    ) -> Tensor:
        D = 1 - torch.rand(concepts, A.shape[1], generator=generator, dtype=torch.float64)
        return unit_atoms(D).to(A.device)
