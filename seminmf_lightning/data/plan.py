"""What a module requires of its stream of rows, and what a batch of that stream holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SHUFFLED_ROWS, LARGE_BATCH = 1024, 8192
BLOCK_BYTES = 64 * 2**20
"""Bytes per batch where order does not matter: large enough for matrix products at full speed."""
COPY_BYTES = 24 * 2**20
"""The same where rows are converted: a larger copy is allocated anew each time, at a seventh of the speed."""
WHOLE_ROWS = 2048
"""Large batches are a multiple of this, so that processes share them in whole blocks."""
LEAST_BATCHES = 8
"""Fewest batches per epoch, so that the loss curve has some points."""


class StreamPlan(NamedTuple):
    """Requirements of the trained module; the defaults suit any module."""

    order_matters: bool = True
    """Whether rows should come shuffled; sums do not need it."""
    block_rows: int = 1
    """Rows whose product is computed at once, so that one process must read them together."""
    rows_per_update: int | None = None
    """Rows between two updates, of all processes together; None: one update per batch."""

    def batch_rows(self, rows: int, features: int, *, converts: bool = False) -> int:
        """Return the usual size of a batch of ``rows`` rows in all; ``converts``: their type is changed.

        >>> StreamPlan(rows_per_update=512).batch_rows(2000, 384), StreamPlan().batch_rows(10**6, 384)
        (1024, 1024)
        >>> StreamPlan(rows_per_update=512).batch_rows(10**6, 384)
        8192
        """
        if self.order_matters:
            update = self.rows_per_update
            if update is None:  # updates are counted in batches
                return SHUFFLED_ROWS
            # Large, because the trainer's own work and message to all processes take 1 ms per batch.
            most = min(LARGE_BATCH, BLOCK_BYTES // (4 * features), rows // LEAST_BATCHES)
            return max(1, SHUFFLED_ROWS // update, most // update) * update
        most = min(65_536, (COPY_BYTES if converts else BLOCK_BYTES) // (4 * features))
        size = max(SHUFFLED_ROWS, min(most, -(-rows // LEAST_BATCHES)))
        return size if size < WHOLE_ROWS else size // WHOLE_ROWS * WHOLE_ROWS


class Batch(NamedTuple):
    """One process's share of a batch.

    >>> batch = Batch(torch.arange(6.0).view(3, 2), torch.tensor([7, 8, 9]), torch.tensor([2, 1]))
    >>> [part.row_ids.tolist() for part in batch.updates()]
    [[7, 8], [9]]
    """

    rows: Tensor
    """(n, d)"""
    row_ids: Tensor | None = None
    """(n,) int64, numbers of the rows in their source, for error messages."""
    update_sizes: Tensor | None = None
    """(u,) int64, how many of the rows belong to each update of the dictionary."""

    def updates(self) -> list[Batch]:
        """Split the batch into parts; the dictionary is updated after each."""
        if self.row_ids is None or self.update_sizes is None or len(self.update_sizes) < 2:
            return [self]
        sizes = self.update_sizes.tolist()
        parts = zip(self.rows.split(sizes), self.row_ids.split(sizes), strict=True)
        return [Batch(rows, row_ids) for rows, row_ids in parts]

    @staticmethod
    def joined(parts: Sequence[Batch]) -> Batch:
        """Return consecutive parts of a batch as one."""
        if len(parts) == 1:
            return parts[0]
        row_ids = [part.row_ids for part in parts if part.row_ids is not None]
        return Batch(torch.cat([part.rows for part in parts]), torch.cat(row_ids))
