"""What a dictionary does to data, in one stream: how often each concept fires, and where most.

Legend:  A (n, d) activations   Z (n, k) codes   D (k, d) dictionary   T examples kept for each concept and
sign
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.linalg import unit_atoms

ENTRIES = 2**22
"""Codes looked at together: what is not zero of them is listed, 8 bytes a number."""


class Nonzeros(NamedTuple):
    """The codes of some rows that are not zero, row by row."""

    row: Tensor
    """(e,) 0..m-1."""
    concept: Tensor
    """(e,) 0..k-1."""
    value: Tensor
    """(e,) float32."""


def nonzeros(Z: Tensor) -> Iterator[tuple[slice, Nonzeros]]:
    """Those of Z (m, k) on the CPU, for some rows at a time: which, and theirs."""
    size = max(1, ENTRIES // Z.shape[1])
    for start in range(0, len(Z), size):
        rows = slice(start, min(start + size, len(Z)))
        row, concept = Z[rows].nonzero(as_tuple=True)
        yield rows, Nonzeros(row.cpu(), concept.cpu(), Z[rows][row, concept].float().cpu())


class Top(NamedTuple):
    """The strongest rows of each concept at one pole, strongest first."""

    values: Tensor
    """(k, T) codes, 0 where there are fewer."""
    rows: Tensor
    """(k, T) row numbers, -1 where there are fewer."""


class TopExamples:
    """The T rows with the largest codes of each concept and sign, one row an example; memory O(k T) whatever
    n is."""

    def __init__(self, concepts: int, examples: int) -> None:
        self.examples = examples
        self.values = torch.zeros(2, concepts, examples)
        self.rows = torch.full((2, concepts, examples), -1)
        self._groups = torch.full((2, concepts, examples), -1)
        self._waiting: tuple[list[tuple[Tensor, ...]], ...] = ([], [])

    def update(self, Z: Tensor, rows: Tensor, groups: Tensor) -> None:
        """Add codes Z (m, k) of ``rows`` (m,), whose examples are ``groups`` (m,)."""
        rows, groups = rows.cpu(), groups.cpu()
        for part, found in nonzeros(Z):
            for pole, sign in enumerate((1, -1)):
                strong = sign * found.value > self.values[pole, :, -1][found.concept]
                row, concept, value = (x[strong] for x in found)
                self._waiting[pole].append((concept, sign * value, rows[part][row], groups[part][row]))
                if sum(len(entries[0]) for entries in self._waiting[pole]) > ENTRIES:
                    self._merge_waiting(pole)
        for pole in range(2):
            self._merge_waiting(pole)

    def _merge_waiting(self, pole: int) -> None:
        entries = [torch.cat(parts) for parts in zip(*self._waiting[pole], strict=True)]
        self._waiting[pole].clear()
        if entries and len(entries[0]):
            self._merge(pole, *entries)

    def _merge(self, pole: int, concepts: Tensor, values: Tensor, rows: Tensor, groups: Tensor) -> None:
        """Put entries (e,), each in the list of its concept: one a group, those of the largest values."""
        touched = concepts.unique()
        known = self.values[pole, touched] > 0
        concept, value, row, group = (
            torch.cat(pair).numpy()
            for pair in (
                (touched[:, None].expand_as(known)[known], concepts), (self.values[pole, touched][known], values),
                (self.rows[pole, touched][known], rows), (self._groups[pole, touched][known], groups),
            )
        )  # fmt: skip
        order = np.lexsort(
            (row, -value, group, concept)
        )  # of a group's entries the largest, of equal ones the first row
        new = np.append(True, (np.diff(concept[order]) != 0) | (np.diff(group[order]) != 0))
        best = order[new]
        best = best[np.lexsort((row[best], -value[best], concept[best]))]
        first = np.flatnonzero(np.append(True, np.diff(concept[best]) != 0))
        rank = np.arange(len(best)) - np.repeat(first, np.diff(np.append(first, len(best))))
        kept = best[rank < self.examples]
        at = torch.from_numpy(concept[kept]), torch.from_numpy(rank[rank < self.examples])
        for lists, entries in ((self.values, value), (self.rows, row), (self._groups, group)):
            lists[pole][at] = torch.from_numpy(entries[kept])

    def poles(self) -> tuple[Top, Top]:
        """The strongest positive and negative rows; the values of both are positive."""
        return Top(self.values[0], self.rows[0]), Top(self.values[1], self.rows[1])


class ConceptSums:
    """Sums over rows for each concept: how often its code is positive and negative, and its squares."""

    def __init__(self, concepts: int) -> None:
        self.rows = 0
        self.positive, self.negative, self.squares = (
            torch.zeros(concepts, dtype=torch.float64) for _ in range(3)
        )

    def update(self, Z: Tensor) -> None:
        """Add codes Z (m, k)."""
        self.rows += len(Z)
        for _, found in nonzeros(Z):
            value = found.value.double()
            for sums, weight in (
                (self.positive, (value > 0).double()), (self.negative, (value < 0).double()), (self.squares, value.square()),
            ):  # fmt: skip
                sums += torch.bincount(found.concept, weight, minlength=len(sums))

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
        self.parts.append(Z[rows % self.step == 0].float().cpu())

    def vectors(self) -> Tensor:
        """Centred sizes |z| of each concept, of norm 1 (k, s): their products are Pearson correlations."""
        Z = torch.cat(self.parts).abs()
        return unit_atoms((Z - Z.mean(dim=0)).T)


def nearest(vectors: Tensor, count: int, block: int = 1024) -> tuple[Tensor, Tensor]:
    """For each row of ``vectors`` (k, p) the ``count`` others of largest product (k, count), and which they
    are.

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
