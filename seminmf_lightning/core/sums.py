"""Everything a dictionary step needs from the data is a sum: over rows, batches, processes, machines.

Legend:  A (n, d)   Z (n, k)   C = A^T A (d, d)   S = Z^T Z (k, k)   P = Z^T A (k, d)

Sums are float64.  A float32 product of one batch carries 24 bits, so that adding such products in float64 is
exact or nearly so in any order; float64 products are rounded to a common grid first, for the same reason.
One process and many, stopped and resumed anywhere, arrive at the same statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seminmf_lightning.core.sparse_codes import SparseCodes

if TYPE_CHECKING:
    from typing_extensions import Self

AFFORDABLE_FEATURES = 8192
"""Largest number of features d for which C (d, d) is kept by ``statistics=auto``: 0.5 GB in float64."""
BLOCK_ROWS = 2048
"""Rows of one float32 product.  Processes get whole blocks: products do not depend on their number."""
NARROW = 320
"""Below this number of features products are float64: they are cheap, and BLAS splits them by thread."""
STRIPS = 4
"""Parts of the columns of A: what is below the diagonal of C is copied, not computed, which leaves 5/8 of the
operations.  At d = 384 to 4,096 a sum takes 0.6 to 0.8 of the time; 2, 3, 6 or 8 parts are no better."""


@dataclass
class Sums:
    """Additive float64 tensors; reduced over processes as one flat buffer."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def flat(self) -> Tensor:
        """Return a copy of all tensors as one vector."""
        return torch.cat([tensor.reshape(-1) for tensor in self.tensors().values()])

    def set_flat_(self, flat: Tensor) -> None:
        """Set all tensors from a vector of :meth:`flat`."""
        sizes = [tensor.numel() for tensor in self.tensors().values()]
        for tensor, part in zip(self.tensors().values(), flat.split(sizes), strict=True):
            tensor.copy_(part.view_as(tensor))

    def add_(self, other: Sums, keep: float = 1.0) -> None:
        """``self <- keep * self + other``; sums that ``other`` lacks are only scaled."""
        theirs = other.tensors()
        for name, mine in self.tensors().items():
            if keep != 1.0:
                mine.mul_(keep)
            if name in theirs:
                mine.add_(theirs[name])

    def zero_(self) -> None:
        for tensor in self.tensors().values():
            tensor.zero_()

    def load_(self, state: Mapping[str, Tensor]) -> None:
        for name, tensor in self.tensors().items():
            tensor.copy_(state[name])

    def to_(self, device: torch.device) -> None:
        for name, tensor in self.tensors().items():
            setattr(self, name, tensor.to(device))


def _zeros(*shape: int, device: torch.device | str | None = None) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64, device=device)


@dataclass
class SecondMoment(Sums):
    """``C = A^T A`` and the number of rows: all that l1_penalty = 0 ever needs of the data.

    >>> moment = SecondMoment.empty(features=2)
    >>> moment.add_rows_(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    >>> moment.gram.tolist(), float(moment.rows)
    ([[1.0, 2.0], [2.0, 5.0]], 2.0)
    """

    gram: Tensor  # C (d, d)
    rows: Tensor  # ()

    @classmethod
    def empty(cls, features: int, device: torch.device | str | None = None) -> SecondMoment:
        """Return the sums over no rows."""
        return cls(_zeros(features, features, device=device), _zeros(device=device))

    def add_rows_(self, A: Tensor, factor: float = 1.0, grid: float = 0.0) -> None:
        """Add ``factor^2 A^T A``.  The product is taken in A's own precision, the sum in float64.

        Products in float64 are rounded to multiples of ``grid``, a power of two, if it is above 0: sums below
        ``2^53 grid`` are then exact, and do not depend on their order (Demmel & Nguyen, "Fast reproducible
        floating-point summation", 2013).

        Raises:
            FloatingPointError: a square overflowed, or A holds NaN or Inf; nothing was added.
        """
        if A.shape[1] < NARROW:
            A = A.double()
        gram, weight = self.gram.clone(), factor * factor
        features = A.shape[1]
        split = A.device.type == "cpu" and features >= NARROW
        width = -(-features // STRIPS) if split else max(1, features)
        strips = [(left, left + width) for left in range(0, features, width)]
        for block in A.split(BLOCK_ROWS):
            for left, right in strips:
                product = block[:, left:right].T @ block[:, left:]
                if grid and product.dtype == torch.float64:
                    gram[left:right, left:].add_(round_to_grid_(product.mul_(weight), grid))
                else:
                    gram[left:right, left:].add_(product, alpha=weight)
        for left, right in strips:
            gram[right:, left:right] = gram[left:right, right:].T
        if not gram.diagonal().sum().isfinite():
            raise FloatingPointError("A^T A is not finite")
        self.gram = gram
        self.rows += A.shape[0]


def round_to_grid_(x: Tensor, grid: float) -> Tensor:
    """Round in place to multiples of ``grid``; numbers from ``2^51 grid`` up lose another bit or two."""
    shift = 1.5 * 2.0**52 * grid
    return x.add_(shift).sub_(shift)


@dataclass
class CodeSums(Sums):
    """Sums over the rows and their codes."""

    rows: Tensor  # ()
    squared_error: Tensor  # () sum of ||a - z D||^2
    squares: Tensor  # () sum of ||a||^2
    l1_norm: Tensor  # () sum of |z|
    fired: Tensor  # (k,) rows in which |z_j| > 0

    @classmethod
    def empty(
        cls, concepts: int, features: int, device: torch.device | str | None = None, own: int | None = None
    ) -> Self:
        """Return the sums over no rows; products are of ``own`` atoms, if given, with all of them."""
        own = concepts if own is None else own
        return cls(*(_zeros(*shape, device=device) for shape in cls._shapes(concepts, features, own)))

    @staticmethod
    def _shapes(concepts: int, features: int, own: int) -> tuple[tuple[int, ...], ...]:
        return ((), (), (), (), (concepts,))

    def add_rows_(self, A: Tensor, codes: SparseCodes, D: Tensor) -> None:
        """Add one batch of rows, their codes, and the dictionary that the codes were computed with.

        Raises:
            FloatingPointError: the error is NaN or Inf; nothing was added.
        """
        squared_error = codes.residual(A, D).square().sum(dtype=torch.float64)
        if not squared_error.isfinite():
            raise FloatingPointError("the reconstruction error is not finite")
        self.squared_error += squared_error
        self.squares += A.double().square().sum()
        self.rows += A.shape[0]
        self._add_codes_(codes.concepts, codes.values.double())

    def _add_codes_(self, concept: Tensor, code: Tensor) -> None:
        """Add nonzero codes, each with its concept."""
        self.l1_norm += code.abs().sum()
        self.fired += torch.bincount(concept, minlength=len(self.fired))


@dataclass
class CodeStatistics(CodeSums):
    """The same, with ``S = Z^T Z`` and ``P = Z^T A``, for online learning (Mairal et al., 2010)."""

    gram: Tensor  # S (k, k), or the rows of some atoms
    cross: Tensor  # P (k, d), likewise

    @staticmethod
    def _shapes(concepts: int, features: int, own: int) -> tuple[tuple[int, ...], ...]:
        return (*CodeSums._shapes(concepts, features, own), (own, concepts), (own, features))

    def add_rows_(self, A: Tensor, codes: SparseCodes, D: Tensor) -> None:
        super().add_rows_(A, codes, D)
        codes.add_products_(self.gram, self.cross, A)
