"""What a dictionary does to data, in one stream: how often each concept fires, and where most.

Legend:  A (n, d) activations   Z (n, k) codes   D (k, d) dictionary   T examples kept for each concept and sign
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from seminmf_lightning.linalg import unit_atoms

SPARE = 4
"""Examples kept beyond those asked for: the same example may come twice, in two batches."""


class Top(NamedTuple):
    """The strongest rows of each concept at one pole, strongest first."""

    values: Tensor
    """(k, T) codes, 0 where there are fewer."""
    rows: Tensor
    """(k, T) row numbers, -1 where there are fewer."""


class TopExamples:
    """The T rows with the largest codes of each concept and sign, one row an example; memory O(k T) whatever n is."""

    def __init__(self, concepts: int, examples: int) -> None:
        self.wanted = examples
        kept = examples + SPARE
        self.values = torch.zeros(2, concepts, kept)
        self.rows = torch.full((2, concepts, kept), -1)
        self.groups = torch.full((2, concepts, kept), -1)

    def update(self, Z: Tensor, rows: Tensor, groups: Tensor) -> None:
        """Add codes Z (m, k) of ``rows`` (m,), whose examples are ``groups`` (m,), equal ones being neighbours."""
        if not len(Z):
            return
        _, segment = torch.unique_consecutive(groups, return_inverse=True)
        at = segment[:, None].expand_as(Z)
        count, m = int(segment[-1]) + 1, len(Z)
        first = torch.arange(m, device=Z.device)[:, None].expand_as(Z)
        for pole, sign in enumerate((1, -1)):
            signed = sign * Z
            best = torch.zeros(count, Z.shape[1], device=Z.device, dtype=Z.dtype).scatter_reduce_(0, at, signed, "amax")
            place = torch.where((signed == best[segment]) & (signed > 0), first, m)
            where = torch.full((count, Z.shape[1]), m, device=Z.device).scatter_reduce_(0, at, place, "amin")
            best, chosen = best.topk(min(count, self.values.shape[2]), dim=0)
            found = where.gather(0, chosen).clamp(max=m - 1)
            self._merge(pole, best.T.cpu().float(), rows[found].T.cpu(), groups[found].T.cpu())

    def _merge(self, pole: int, values: Tensor, rows: Tensor, groups: Tensor) -> None:
        missing = values <= 0
        rows, groups = rows.masked_fill(missing, -1), groups.masked_fill(missing, -1)
        joined = torch.cat([self.values[pole], values], dim=1)
        # Stable, so that of equal codes the earlier row stays.
        order = joined.sort(dim=1, descending=True, stable=True).indices[:, : self.values.shape[2]]
        self.values[pole] = joined.gather(1, order)
        self.rows[pole] = torch.cat([self.rows[pole], rows], dim=1).gather(1, order)
        self.groups[pole] = torch.cat([self.groups[pole], groups], dim=1).gather(1, order)

    def poles(self) -> tuple[Top, Top]:
        """The strongest positive and negative rows; the values of both are positive."""
        found = []
        for pole in range(2):
            groups = self.groups[pole]
            earlier = torch.ones(groups.shape[1], groups.shape[1], dtype=torch.bool).tril(-1)
            repeated = ((groups[:, :, None] == groups[:, None, :]) & earlier).any(dim=2) | (groups < 0)
            order = repeated.int().sort(dim=1, stable=True).indices[:, : self.wanted]
            values = self.values[pole].masked_fill(repeated, 0).gather(1, order)
            found.append(Top(values, self.rows[pole].masked_fill(repeated, -1).gather(1, order)))
        return found[0], found[1]


class ConceptSums:
    """Sums over rows for each concept: how often its code is positive and negative, its size and its squares."""

    def __init__(self, concepts: int) -> None:
        self.rows = 0
        self.positive, self.negative, self.absolute, self.squares = (
            torch.zeros(concepts, dtype=torch.float64) for _ in range(4)
        )

    def update(self, Z: Tensor) -> None:
        """Add codes Z (m, k)."""
        self.rows += len(Z)
        self.positive += (Z > 0).sum(dim=0).cpu()
        self.negative += (Z < 0).sum(dim=0).cpu()
        self.absolute += Z.abs().sum(dim=0, dtype=torch.float64).cpu()
        self.squares += Z.square().sum(dim=0, dtype=torch.float64).cpu()

    @property
    def density(self) -> Tensor:
        """Share of the rows in which a code is not zero (k,)."""
        return (self.positive + self.negative) / max(self.rows, 1)


class CodeSample:
    """Every s-th row's codes, at most ``limit`` numbers in all: what co-activation is measured on."""

    def __init__(self, concepts: int, rows: int, limit: int = 2**25) -> None:
        self.step = max(1, -(-rows * concepts // limit))
        self.parts: list[Tensor] = []

    def update(self, Z: Tensor, rows: Tensor) -> None:
        """Add codes Z (m, k) of row numbers ``rows`` (m,)."""
        self.parts.append(Z[rows % self.step == 0].cpu())

    def vectors(self) -> Tensor:
        """Centred sizes |z| of each concept, of norm 1 (k, s): their products are Pearson correlations."""
        Z = torch.cat(self.parts).abs().float()
        return unit_atoms((Z - Z.mean(dim=0)).T)


def nearest(vectors: Tensor, count: int, block: int = 1024) -> tuple[Tensor, Tensor]:
    """For each row of ``vectors`` (k, p) the ``count`` others of largest product (k, count), and which they are.

    Works on ``block`` rows at a time: k x k products are never held.
    """
    values, columns = [], []
    for start in range(0, len(vectors), block):
        products = vectors[start : start + block] @ vectors.T
        products[torch.arange(len(products)), torch.arange(start, start + len(products))] = -2
        best = products.topk(min(count, len(vectors) - 1), dim=1)
        values.append(best.values)
        columns.append(best.indices)
    return torch.cat(values), torch.cat(columns)
