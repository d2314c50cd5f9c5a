"""Which rows of a global batch a process reads: the same batches whatever the number of processes.

Positions p = 0..n-1 are those of a :class:`RowSet`.  An order keeps no state: any batch of any pass is worked
out by itself, so that a resumed pass seeks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from seminmf_lightning.data.sources.base import NO_FETCH, Chunking, FetchPlan
from seminmf_lightning.data.splits import RowSet, shuffled

LEAST_BLOCK = 256  # rows in a row, where their order is free


class Share(NamedTuple):
    """What one process reads of a batch: ``positions`` in this order or, where that is None, ``stretches``
    [start, stop)."""

    positions: np.ndarray | None
    stretches: list[tuple[int, int]]
    sizes: np.ndarray  # (b,) rows of each minibatch


class Order(ABC):
    """Shares of the batches ``0..batches-1`` of a pass; later ones are empty."""

    batches: int

    @abstractmethod
    def share(self, epoch: int, batch: int) -> Share:
        """The share of this process."""

    def wanted(self, epoch: int, batch: int) -> FetchPlan:
        """Rows to have at hand for this batch, and for those to come; the same object until that changes."""
        return NO_FETCH


class ScatteredOrder(Order):
    """Every row may be next: shuffled over all of them, or in order.  A process has a slice of each
    minibatch."""

    def __init__(
        self,
        rows: RowSet,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        rank: int,
        world: int,
        block: int,
        minibatch: int,
    ) -> None:
        self.total, self.batch_size, self.minibatch = len(rows), batch_size, minibatch
        self.shuffle, self.seed, self.rank, self.world, self.block = shuffle, seed, rank, world, block
        self.batches = -(-self.total // batch_size)

    def share(self, epoch: int, batch: int) -> Share:
        begin = min(batch * self.batch_size, self.total)
        size = min(self.batch_size, self.total - begin)
        slices = []
        for first in range(begin, begin + size, self.minibatch):
            whole = min(self.minibatch, begin + size - first)
            start, stop = (first + self._cut(whole, part) for part in (self.rank, self.rank + 1))
            slices.append((start, stop))
        sizes = np.array([stop - start for start, stop in slices], dtype=np.int64)
        if not self.shuffle:
            return Share(None, slices, sizes)
        positions = np.concatenate([np.arange(start, stop) for start, stop in slices] or [np.arange(0)])
        return Share(shuffled(positions, self.total, self.seed, epoch), [], sizes)

    def _cut(self, size: int, part: int) -> int:
        """Where the slice of process ``part`` begins: after a whole number of blocks."""
        blocks = -(-size // self.block)
        return min(size, blocks * part // self.world * self.block)


class WindowedOrder(Order):
    """For rows that are fetched chunk by chunk: batches are made from one *window* of some chunks after the
    other.

    Chunk j of a pass is that of process ``j % world``, which fetches no other and reads its rows of each
    minibatch, be they many, few or none.

    - ``shuffle``: chunks come in a random order, and the rows of a window in one of their own.
    - else: blocks of rows, one of each chunk of the window in turn, so that all processes have work in every
      batch. Blocks are whole but for the very last: what a module computes of a block does not depend on who
      computes it.
    """

    def __init__(
        self, rows: RowSet, batch_size: int, chunking: Chunking, *,
        shuffle: bool, seed: int, rank: int, world: int, block: int, minibatch: int,
    ) -> None:  # fmt: skip
        self.rows, self.total, self.shuffle, self.seed, self.rank, self.world = (
            rows,
            len(rows),
            shuffle,
            seed,
            rank,
            world,
        )
        self.minibatch = minibatch
        self.unit = 1 if shuffle else min(max(block, LEAST_BLOCK), batch_size)
        self.chunk = max(1, chunking.rows // self.unit) * self.unit
        self.chunks = -(-self.total // self.chunk)
        windows = max(1, -(-self.chunks * self.chunk // chunking.window))
        self._cuts = (
            np.arange(windows + 1) * self.chunks // windows
        )  # the first chunk of each window: sizes differ by one
        self._units = -(-self.total // self.unit)
        self._batch_units = max(1, batch_size // self.unit)
        self.batches = -(-self._units // self._batch_units)
        self._pass: tuple[int, np.ndarray, np.ndarray] | None = None
        self._wanted: tuple[tuple[int, int, int], FetchPlan] | None = None

    @property
    def narrowest(self) -> int:
        """Chunks of the smallest window: more processes than that would be idle in it."""
        return int(np.diff(self._cuts).min())

    def share(self, epoch: int, batch: int) -> Share:
        begin, end = self._span(batch)
        parts = [self._mixed(epoch, begin, end, window) for window in self._windows(epoch, begin, end)]
        if self.shuffle:
            places = np.concatenate([np.arange(0), *(places for places, _ in parts)])
            positions = np.concatenate([np.arange(0), *(positions for _, positions in parts)])
            groups = -(-(end - begin) // self.minibatch)
            return Share(
                positions,
                [],
                np.bincount((places - begin) // self.minibatch, minlength=groups).astype(np.int64),
            )
        starts = [int(start) for _, found in parts for start in found]
        stretches = [(start, min(start + self.unit, self.total)) for start in starts]
        stretches.sort(
            key=lambda one: one[0] - one[1]
        )  # the one short block last, or it would shift those after it
        return Share(
            None, stretches, np.array([sum(stop - start for start, stop in stretches)], dtype=np.int64)
        )

    def wanted(self, epoch: int, batch: int) -> FetchPlan:
        begin, end = self._span(batch)
        touched = self._windows(epoch, begin, end)
        if not touched:
            return NO_FETCH
        key = (epoch, touched[0], touched[-1])
        if self._wanted is None or self._wanted[0] != key:
            now = [chunk for window in touched for chunk in self._own(epoch, window)]
            self._wanted = (key, FetchPlan(now, self._own(epoch, touched[-1] + 1)))
        return self._wanted[1]

    def _span(self, batch: int) -> tuple[int, int]:
        """First and last unit of a batch in the pass."""
        begin = min(batch * self._batch_units, self._units)
        return begin, min(begin + self._batch_units, self._units)

    def _layout(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Chunks in the order of this pass (c,), and the place in it of the first row of each (c + 1,)."""
        if self._pass is None or self._pass[0] != epoch:
            order = np.arange(self.chunks)
            if self.shuffle:
                order = np.random.default_rng([self.seed, epoch]).permutation(order)
            sizes = np.minimum(self.chunk, self.total - order * self.chunk)
            self._pass = (epoch, order, np.append(0, np.cumsum(sizes)))
        return self._pass[1:]

    def _bounds(self, epoch: int) -> np.ndarray:
        """The first unit of each window, and the number of all."""
        return -(-self._layout(epoch)[1][self._cuts] // self.unit)

    def _windows(self, epoch: int, begin: int, end: int) -> range:
        """The windows that units ``begin..end-1`` are in."""
        if begin >= end:
            return range(0)
        first, last = np.searchsorted(self._bounds(epoch), [begin, end - 1], side="right") - 1
        return range(int(first), int(last) + 1)

    def _own(self, epoch: int, window: int) -> list[tuple[tuple[int, int], ...]]:
        """Row ranges of each chunk of a window that this process fetches."""
        if window + 1 >= len(self._cuts):
            return []
        places = np.arange(self._cuts[window], self._cuts[window + 1])
        starts = self._layout(epoch)[0][places[places % self.world == self.rank]] * self.chunk
        return [
            tuple(self.rows.ranges(start, min(start + self.chunk, self.total))) for start in starts.tolist()
        ]

    def _mixed(self, epoch: int, begin: int, end: int, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Of units ``begin..end-1`` in a window, those of this process: their places in the pass, the
        position of each."""
        low, high = self._bounds(epoch)[window : window + 2].tolist()
        places = np.arange(max(begin, low), min(end, high))
        order, starts = self._layout(epoch)
        if self.shuffle:
            drawn = low + shuffled(places - low, high - low, self.seed, epoch, window)
            chunk = np.searchsorted(starts, drawn, side="right") - 1
            positions = order[chunk] * self.chunk + drawn - starts[chunk]
        else:
            chunk, within = np.arange(*self._cuts[window : window + 2]), np.arange(0, self.chunk, self.unit)
            blocks = (chunk * self.chunk + within[:, None]).ravel()  # one of each chunk in turn
            positions = blocks[blocks < self.total][places - low]
            chunk = positions // self.chunk
        mine = chunk % self.world == self.rank
        return places[mine], positions[mine]
