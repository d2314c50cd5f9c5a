"""Codes without their zeros, row by row, and the sums over them that a dictionary step needs.

They are what processes exchange: 512 rows of ten nonzeros are 40 kB, the sums over them grow with k^2.

Legend:  A (n, d)   Z (n, k)   D (k, d)   S = Z^T Z (k, k)   P = Z^T A (k, d)   m nonzeros in all
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.compiled import Array, in_order, in_threads, on_cpu

PAIR_WORK = 65
"""Operations of a large matrix product that take as long as adding one product in place by the kernel;
measured on two CPU cores (4,096 rows of 12 nonzeros, k = 2,048: 24 ms against 385 ms)."""
DENSE_ROWS = 2048
"""Rows of one product of dense codes."""


class SparseCodes(NamedTuple):
    """Nonzero codes of n rows.

    >>> codes = SparseCodes.of(torch.tensor([[0.0, 2.0], [3.0, 1.0]]))
    >>> codes.counts.tolist(), codes.concepts.tolist(), codes.values.tolist()
    ([1, 2], [1, 0, 1], [2.0, 3.0, 1.0])
    """

    counts: Tensor
    """(n,) int64, nonzeros per row."""
    concepts: Tensor
    """(m,) int64, the atom of each code."""
    values: Tensor
    """(m,)"""

    @classmethod
    def of(cls, Z: Tensor) -> SparseCodes:
        """Return the nonzero codes of Z (n, k)."""
        row, concept = Z.nonzero(as_tuple=True)
        return cls(torch.bincount(row, minlength=len(Z)), concept, Z[row, concept])

    def residual(self, A: Tensor, D: Tensor) -> Tensor:
        """Return ``A - Z D`` (n, d)."""
        if not on_cpu(D) or self._dense(len(D), D.shape[1]):
            return torch.cat([rows - Z @ D for rows, Z in self._blocks(A, len(D))])
        R, starts = A.clone(), self._starts()
        arrays = [x.numpy() for x in (R, starts, self.concepts, self.values, D)]
        in_threads(lambda part: _subtract(part.start, min(part.stop, len(R)), *arrays), len(R))
        return R

    def add_products_(self, gram: Tensor, cross: Tensor, A: Tensor, first: int = 0) -> None:
        """``S += Z^T Z`` and ``P += Z^T A``, in float64: a step must not depend on how rows are split.

        ``gram`` (h, k) and ``cross`` (h, d) may hold the rows of the atoms from ``first`` on alone.
        """
        k, atoms = gram.shape[1], slice(first, first + len(gram))
        if not on_cpu(gram) or self._dense(k, k + A.shape[1]):
            for rows, Z in self._blocks(A, k):
                exact = Z.double()
                gram.addmm_(exact[:, atoms].T, exact)
                cross.addmm_(exact[:, atoms].T, rows.double())
            return
        sums = (x.numpy() for x in (self._starts(), self.concepts, self.values, A, gram, cross))
        _add_products(*sums, first)

    def _dense(self, k: int, width: int) -> bool:
        """Whether a product of dense (n, k) with (k, width) takes less time than one pair after the other."""
        pairs = int(self.counts.square().sum()) + len(self.values) * (width - k)
        return pairs * PAIR_WORK > len(self.counts) * k * width

    def _starts(self) -> Tensor:
        return torch.cat([self.counts.new_zeros(1), self.counts.cumsum(0)])

    def _blocks(self, A: Tensor, k: int) -> list[tuple[Tensor, Tensor]]:
        """Return the rows with their dense codes, in blocks."""
        row = torch.repeat_interleave(self.counts)
        Z = A.new_zeros(len(A), k)
        Z[row, self.concepts] = self.values
        return list(zip(A.split(DENSE_ROWS), Z.split(DENSE_ROWS), strict=True))


@in_order
def _subtract(
    first: int, last: int, R: Array, starts: Array, concepts: Array, values: Array, D: Array
) -> None:
    for row in range(first, last):
        for i in range(starts[row], starts[row + 1]):
            code, atom = values[i], concepts[i]
            for j in range(R.shape[1]):
                R[row, j] -= code * D[atom, j]


@in_order
def _add_products(
    starts: Array, concepts: Array, values: Array, A: Array, gram: Array, cross: Array, first: int
) -> None:
    for row in range(len(starts) - 1):
        for i in range(starts[row], starts[row + 1]):
            code, atom = np.float64(values[i]), concepts[i] - first
            if atom < 0 or atom >= len(gram):
                continue
            for j in range(A.shape[1]):
                cross[atom, j] += code * np.float64(A[row, j])
            for other in range(starts[row], starts[row + 1]):
                gram[atom, concepts[other]] += code * np.float64(values[other])
