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

Batch = tuple[Tensor, Tensor, Tensor]
"""Rows (m, d), their numbers in the source (m,) int64, and how many of them belong to each minibatch (b,) int64."""


class BatchStream:
    """An iterable for the trainer: ``len``, a resumable position, no worker processes (they slow a memory map down).

    ``batch_size`` counts the rows of all processes together.  ``extra`` empty batches follow the data in every pass, for
    modules that go on working without it.  Slices begin at multiples of ``block`` rows.

    A batch is made of minibatches of ``minibatch`` rows of all processes together, each process having its slice of each of
    them: what a module does after every minibatch depends neither on the batch size nor on the number of processes.
    """

    def __init__(
        self, source: Source, rows: RowSet, batch_size: int, *,
        shuffle: bool, seed: int, rank: int = 0, world: int = 1, extra: int = 0, block: int = 1,
        minibatch: int | None = None,
    ) -> None:  # fmt: skip
        self.source, self.rows, self.batch_size = source, rows, batch_size
        self.shuffle, self.seed, self.rank, self.world = shuffle, seed, rank, world
        self.data_batches = -(-len(rows) // batch_size)
        self.extra, self.block, self.minibatch = extra, block, min(minibatch or batch_size, batch_size)
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
        slices = []
        for first in range(begin, begin + size, self.minibatch):
            whole = min(self.minibatch, begin + size - first)
            slices.append([first + self._cut(whole, part) for part in (self.rank, self.rank + 1)])
        sizes = torch.tensor([stop - start for start, stop in slices], dtype=torch.int64)
        if self.shuffle:
            positions = np.concatenate([np.arange(start, stop) for start, stop in slices] or [np.arange(0)])
            drawn = self.rows.rows(shuffled(positions, len(self.rows), self.seed, self.epoch))
            return self.source.read(drawn), torch.from_numpy(drawn), sizes
        ranges = [one for start, stop in slices for one in self.rows.ranges(start, stop)]
        if len(ranges) == 1:
            return self.source.read_range(*ranges[0]), torch.arange(*ranges[0]), sizes
        rows = [self.source.read_range(*one) for one in ranges]
        numbers = [torch.arange(*one) for one in ranges]
        return (
            torch.cat(rows) if rows else self.source.read_range(0, 0),
            torch.cat(numbers) if numbers else torch.arange(0),
            sizes,
        )
