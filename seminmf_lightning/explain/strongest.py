"""Find the rows on which each concept is strongest, and how often it is used, reading the codes once.

Legend:  Z (m, k) codes of one batch   D (k, d) dictionary   T examples kept per concept and sign
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

ENTRIES = 2**22
"""Codes searched at once for nonzeros, whose indices take 8 bytes each."""


class Nonzeros(NamedTuple):
    """The nonzero codes of some rows, row by row."""

    row: Tensor
    """(e,) 0..m-1."""
    concept: Tensor
    """(e,) 0..k-1."""
    value: Tensor
    """(e,) float32."""


def nonzeros(Z: Tensor) -> Iterator[tuple[slice, Nonzeros]]:
    """Yield the nonzeros of Z (m, k) on the CPU for some rows at a time, with the slice of those rows.

    >>> [(rows.stop, part.value.tolist()) for rows, part in nonzeros(torch.tensor([[0.0, 2.0], [-1.0, 0.0]]))]
    [(2, [2.0, -1.0])]
    """
    size = max(1, ENTRIES // Z.shape[1])
    for start in range(0, len(Z), size):
        rows = slice(start, min(start + size, len(Z)))
        row, concept = Z[rows].nonzero(as_tuple=True)
        yield rows, Nonzeros(row.cpu(), concept.cpu(), Z[rows][row, concept].float().cpu())


class Top(NamedTuple):
    """The strongest rows of each concept for one sign, strongest first."""

    values: Tensor
    """(k, T) ``|z|``, 0 where there are fewer rows."""
    row_ids: Tensor
    """(k, T), -1 where there are fewer rows."""


class TopExamples:
    """The T rows with the largest codes of each concept and sign, one row per example; memory O(k T).

    >>> top = TopExamples(concepts=1, examples=2)
    >>> top.update(torch.tensor([[1.0], [3.0], [2.0], [-4.0]]), torch.arange(4), torch.tensor([0, 0, 1, 2]))
    >>> positive, negative = top.signs()
    >>> positive.row_ids.tolist(), negative.values.tolist()
    ([[1, 2]], [[4.0, 0.0]])
    """

    def __init__(self, concepts: int, examples: int) -> None:
        self.examples = examples
        self.values = torch.zeros(2, concepts, examples)
        self.row_ids = torch.full((2, concepts, examples), -1)
        self._groups = torch.full((2, concepts, examples), -1)
        self._pending: tuple[list[tuple[Tensor, ...]], ...] = ([], [])

    def update(self, Z: Tensor, row_ids: Tensor, groups: Tensor) -> None:
        """Add codes Z (m, k) of rows ``row_ids`` (m,) that belong to examples ``groups`` (m,)."""
        row_ids, groups = row_ids.cpu(), groups.cpu()
        for rows, part in nonzeros(Z):
            for index, sign in enumerate((1, -1)):
                strong = sign * part.value > self.values[index, :, -1][part.concept]
                row, concept, value = (x[strong] for x in part)
                self._pending[index].append((concept, sign * value, row_ids[rows][row], groups[rows][row]))
                if sum(len(entries[0]) for entries in self._pending[index]) > ENTRIES:
                    self._merge_pending(index)
        for index in range(2):
            self._merge_pending(index)

    def _merge_pending(self, index: int) -> None:
        entries = [torch.cat(parts) for parts in zip(*self._pending[index], strict=True)]
        self._pending[index].clear()
        if entries and len(entries[0]):
            self._merge(index, *entries)

    def _merge(self, index: int, concepts: Tensor, values: Tensor, row_ids: Tensor, groups: Tensor) -> None:
        """Merge entries (e,) into the lists of their concepts: the largest of each group, and the T
        largest."""
        touched = concepts.unique()
        kept_before = self.values[index, touched] > 0
        concept, value, row, group = (
            torch.cat(pair).numpy()
            for pair in (
                (touched[:, None].expand_as(kept_before)[kept_before], concepts),
                (self.values[index, touched][kept_before], values),
                (self.row_ids[index, touched][kept_before], row_ids),
                (self._groups[index, touched][kept_before], groups),
            )
        )
        # Keep the largest entry of each group; among equal ones, the first row.
        order = np.lexsort((row, -value, group, concept))
        first_of_group = np.append(True, (np.diff(concept[order]) != 0) | (np.diff(group[order]) != 0))
        best = order[first_of_group]
        # Rank the groups of each concept by size, and keep the first T.
        best = best[np.lexsort((row[best], -value[best], concept[best]))]
        first = np.flatnonzero(np.append(True, np.diff(concept[best]) != 0))
        rank = np.arange(len(best)) - np.repeat(first, np.diff(np.append(first, len(best))))
        kept = best[rank < self.examples]
        at = torch.from_numpy(concept[kept]), torch.from_numpy(rank[rank < self.examples])
        for lists, entries in ((self.values, value), (self.row_ids, row), (self._groups, group)):
            lists[index][at] = torch.from_numpy(entries[kept])

    def signs(self) -> tuple[Top, Top]:
        """Return the strongest rows with z > 0, and those with z < 0; the values of both are positive."""
        return Top(self.values[0], self.row_ids[0]), Top(self.values[1], self.row_ids[1])


class ConceptSums:
    """Sums over rows per concept: counts of positive and negative codes, and sums of squares.

    >>> sums = ConceptSums(2)
    >>> sums.update(torch.tensor([[1.0, 0.0], [-2.0, 0.0]]))
    >>> sums.density.tolist(), sums.squares.tolist()
    ([1.0, 0.0], [5.0, 0.0])
    """

    def __init__(self, concepts: int) -> None:
        self.rows = 0
        self.positive, self.negative, self.squares = torch.zeros(3, concepts, dtype=torch.float64)

    def update(self, Z: Tensor) -> None:
        """Add codes Z (m, k)."""
        self.rows += len(Z)
        for _, part in nonzeros(Z):
            value = part.value.double()
            for sums, weight in (
                (self.positive, (value > 0).double()),
                (self.negative, (value < 0).double()),
                (self.squares, value.square()),
            ):
                sums += torch.bincount(part.concept, weight, minlength=len(sums))

    @property
    def density(self) -> Tensor:
        """Share of rows with a nonzero code (k,)."""
        return (self.positive + self.negative) / max(self.rows, 1)


def nearest(
    vectors: Tensor, count: int, block: int = 1024, *, sign_is_free: bool = False
) -> tuple[Tensor, Tensor]:
    """Return products and ids (k, count) of the ``count`` other rows of ``vectors`` (k, p) with largest
    product, in absolute value if ``sign_is_free``.

    Computes ``block`` rows at a time, so that the (k, k) products are never in memory at once.

    >>> nearest(torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), 1)[1].tolist()
    [[1], [0], [1]]
    """
    values, ids = [], []
    for start in range(0, len(vectors), block):
        products = vectors[start : start + block] @ vectors.T
        products = products.abs() if sign_is_free else products
        products[torch.arange(len(products)), torch.arange(start, start + len(products))] = -2
        best = products.topk(min(count, len(vectors) - 1), dim=1)
        values.append(best.values)
        ids.append(best.indices)
    return torch.cat(values), torch.cat(ids)
