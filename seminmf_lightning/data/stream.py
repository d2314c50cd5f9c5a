"""Batches of one process, in an order that does not depend on how many processes there are.

Every process walks the same global batches and reads its own slice of each: counts are equal everywhere, a tail may leave
some process an empty (0, d) batch, and the position is one pair of numbers, the same on all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.data.rows import RowSet, shuffled
from seminmf_lightning.data.source import Source

Batch = tuple[Tensor, Tensor]
"""Rows (m, d) and their numbers in the source (m,) int64."""


class BatchStream:
    """An iterable for the trainer: ``len``, a resumable position, no worker processes (they slow a memory map down).

    ``batch_size`` counts the rows of all processes together.  ``extra`` empty batches follow the data in every pass, for
    modules that go on working without it.  Slices begin at multiples of ``block`` rows.
    """

    def __init__(
        self, source: Source, rows: RowSet, batch_size: int, *,
        shuffle: bool, seed: int, rank: int = 0, world: int = 1, extra: int = 0, block: int = 1,
    ) -> None:  # fmt: skip
        self.source, self.rows, self.batch_size = source, rows, batch_size
        self.shuffle, self.seed, self.rank, self.world = shuffle, seed, rank, world
        self.data_batches = -(-len(rows) // batch_size)
        self.extra, self.block = extra, block
        self.epoch, self.batch = 0, 0

    def __len__(self) -> int:
        return self.data_batches + self.extra

    def __iter__(self) -> Iterator[Batch]:
        if self.batch >= len(self):  # a checkpoint taken at the very end of a pass: go on with the next
            self.epoch, self.batch = self.epoch + 1, 0
        while self.batch < len(self):
            self.batch += 1
            yield self._read(self.batch - 1)
        self.epoch, self.batch = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.batch = state["epoch"], state["batch"]

    def set_epoch(self, epoch: int) -> None:
        """Begin pass ``epoch``, unless it is the one under way.  A checkpoint taken between two passes does not give the
        position back through :meth:`load_state_dict`; the trainer's count of passes does."""
        if epoch > self.epoch:
            self.epoch, self.batch = epoch, 0

    def _cut(self, size: int, part: int) -> int:
        """Where the slice of process ``part`` begins: after a whole number of blocks."""
        blocks = -(-size // self.block)
        return min(size, blocks * part // self.world * self.block)

    def _read(self, batch: int) -> Batch:
        begin = min(batch * self.batch_size, len(self.rows))
        size = min(self.batch_size, len(self.rows) - begin)
        start, stop = (begin + self._cut(size, part) for part in (self.rank, self.rank + 1))
        if self.shuffle:
            numbers = self.rows.rows(shuffled(np.arange(start, stop), len(self.rows), self.seed, self.epoch))
            return self.source.read(numbers), torch.from_numpy(numbers)
        ranges = self.rows.ranges(start, stop)
        if len(ranges) == 1:
            return self.source.read_range(*ranges[0]), torch.arange(*ranges[0])
        numbers = self.rows.rows(np.arange(start, stop))
        parts = [self.source.read_range(*one) for one in ranges]
        return torch.cat(parts) if parts else self.source.read_range(0, 0), torch.from_numpy(numbers)
