"""Synthetic rows from a known dictionary, to check whether training recovers it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seminmf_lightning.core.checks import real_number, whole_number
from seminmf_lightning.core.constraints import CONSTRAINTS, constraint
from seminmf_lightning.data.shard import Shard
from seminmf_lightning.data.sources.base import Source


@dataclass
class PlantedRows(Source):
    """``A = Z D + noise``: D (concepts, features) sparse with unit atoms, Z sparse, of the signs of
    ``nonnegative``.

    >>> A, Z, D = PlantedRows(rows=10, features=4, concepts=2, nonzeros=1, noise=0.0).planted()
    >>> torch.equal(A, Z @ D)
    True
    """

    rows: int = 20_000
    features: int = 64
    concepts: int = 32
    nonzeros: int = 3
    """Nonzero codes per row."""
    density: float = 0.3
    """Share of the entries of an atom that are not zero."""
    noise: float = 0.01
    """Standard deviation of the noise in each entry."""
    data_seed: int = 0
    nonnegative: str = "dictionary"
    """Signs of the truth: ``dictionary`` (D >= 0, Z free), ``codes``, ``both`` or ``none``.  With ``both``,
    entries that noise makes negative become zero."""

    def __post_init__(self) -> None:
        for name in ("rows", "features", "concepts", "nonzeros"):
            whole_number(f"data.{name}", getattr(self, name), 1)
        if self.nonzeros > self.concepts:
            raise ValueError(f"data.nonzeros={self.nonzeros} is more than data.concepts={self.concepts}")
        real_number("data.density", self.density, 0, exclusive=True)
        real_number("data.noise", self.noise, 0)
        constraint(self.nonnegative)

    def planted(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return rows A (n, d), and the codes Z (n, k) and dictionary D (k, d) that generate them."""
        generator = torch.Generator().manual_seed(self.data_seed)
        shape = (self.concepts, self.features)
        D = torch.rand(shape, generator=generator) * (torch.rand(shape, generator=generator) < self.density)
        D[torch.arange(self.concepts), torch.arange(self.concepts) % self.features] += 0.5  # no atom is zero
        D = D / D.norm(dim=1, keepdim=True)
        chosen = torch.rand(self.rows, self.concepts, generator=generator).topk(self.nonzeros).indices
        size = 0.5 + torch.rand(self.rows, self.nonzeros, generator=generator)
        sign = torch.randint(0, 2, size.shape, generator=generator) * 2 - 1
        noise = self.noise * torch.randn(self.rows, self.features, generator=generator)
        signs = CONSTRAINTS[self.nonnegative]
        if not signs.nonnegative_atoms:
            D = D * (torch.randint(0, 2, shape, generator=generator) * 2 - 1)
        Z = torch.zeros(self.rows, self.concepts)
        Z.scatter_(1, chosen, size if signs.nonnegative_codes else size * sign)
        A = Z @ D + noise
        return A.clamp(min=0) if signs.is_nmf else A, Z, D

    def open(self) -> list[Shard]:
        return [Shard("planted rows", self.planted()[0])]
