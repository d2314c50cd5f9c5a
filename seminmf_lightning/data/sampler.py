"""Divide each batch among the processes, so that batches do not depend on how many processes there are.

Positions p = 0..n-1 are those of a :class:`~seminmf_lightning.data.splits.RowSet`.  An order keeps no state:
any batch of any epoch is computed by itself, so that a resumed epoch seeks instead of replaying.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from seminmf_lightning.data.sources.base import NO_FETCH, Chunking, FetchPlan
from seminmf_lightning.data.splits import RowSet, shuffled

LEAST_BLOCK = 256
"""Fewest consecutive rows that are read together where the order is free."""


class Processes(NamedTuple):
    """How the rows of each update are divided among processes."""

    rank: int
    world: int
    block: int
    """Rows that one process gets together."""
    per_update: int
    """Rows of all processes together between two updates."""


class Share(NamedTuple):
    """One process's share of a batch: rows at ``positions``, or if that is None at the positions in
    ``ranges`` [start, stop)."""

    positions: np.ndarray | None
    ranges: list[tuple[int, int]]
    sizes: np.ndarray
    """(u,) rows of this process in each update."""


class Order(ABC):
    """Shares of the batches ``0..batches-1`` of an epoch; shares of later batches are empty."""

    batches: int

    @abstractmethod
    def share(self, epoch: int, batch: int) -> Share:
        """Return this process's share of a batch."""

    def fetch_plan(self, epoch: int, batch: int) -> FetchPlan:
        """Return the rows to fetch for this batch and the next ones; the same object until they change."""
        return NO_FETCH


class ScatteredOrder(Order):
    """All rows shuffled, or in order; any row may be next.  Each process reads a slice of each update."""

    def __init__(
        self, rows: RowSet, batch_size: int, processes: Processes, *, shuffle: bool, seed: int
    ) -> None:
        self.total, self.batch_size, self.processes = len(rows), batch_size, processes
        self.shuffle, self.seed = shuffle, seed
        self.batches = -(-self.total // batch_size)

    def share(self, epoch: int, batch: int) -> Share:
        begin = min(batch * self.batch_size, self.total)
        end = min(begin + self.batch_size, self.total)
        rank, per_update = self.processes.rank, self.processes.per_update
        slices = []
        for first in range(begin, end, per_update):
            size = min(per_update, end - first)
            slices.append((first + self._slice_start(size, rank), first + self._slice_start(size, rank + 1)))
        sizes = np.array([stop - start for start, stop in slices], dtype=np.int64)
        if not self.shuffle:
            return Share(None, slices, sizes)
        positions = np.concatenate([np.arange(start, stop) for start, stop in slices] or [np.arange(0)])
        return Share(shuffled(positions, self.total, self.seed, epoch), [], sizes)

    def _slice_start(self, size: int, rank: int) -> int:
        """Return where the slice of process ``rank`` starts: after a whole number of blocks."""
        block, world = self.processes.block, self.processes.world
        return min(size, -(-size // block) * rank // world * block)


class WindowedOrder(Order):
    """Orders rows that are fetched in chunks: batches come from one *window* of several chunks at a time.

    Chunk j of an epoch belongs to process ``j % world``, which fetches no other chunks and reads
    their rows of each update, whether many, few or none.

    - ``shuffle``: chunks come in random order, and the rows of a window in a random order of their own.
    - otherwise: blocks of rows, one from each chunk of the window in turn, so that all processes have work in
      every batch.  All blocks but the last one are whole, so results do not depend on which process computes
      a block.
    """

    def __init__(
        self, rows: RowSet, batch_size: int, chunking: Chunking, processes: Processes, *, shuffle: bool,
        seed: int
    ) -> None:  # fmt: skip
        self.rows, self.total, self.processes = rows, len(rows), processes
        self.shuffle, self.seed = shuffle, seed
        self.unit = 1 if shuffle else min(max(processes.block, LEAST_BLOCK), batch_size)
        self.chunk = max(1, chunking.rows // self.unit) * self.unit
        self.chunks = -(-self.total // self.chunk)
        windows = max(1, -(-self.chunks * self.chunk // chunking.window))
        # The first chunk of each window; windows differ by at most one chunk.
        self._cuts = np.arange(windows + 1) * self.chunks // windows
        self._units = -(-self.total // self.unit)
        self._units_per_batch = max(1, batch_size // self.unit)
        self.batches = -(-self._units // self._units_per_batch)
        self._layout_of_epoch: tuple[int, np.ndarray, np.ndarray] | None = None
        self._fetch_plan: tuple[tuple[int, int, int], FetchPlan] | None = None

    @property
    def narrowest(self) -> int:
        """Number of chunks in the smallest window; more processes than that would be idle."""
        return int(np.diff(self._cuts).min())

    def share(self, epoch: int, batch: int) -> Share:
        begin, end = self._span(batch)
        parts = [self._own_units(epoch, begin, end, window) for window in self._windows(epoch, begin, end)]
        if self.shuffle:
            units = np.concatenate([np.arange(0), *(units for units, _ in parts)])
            positions = np.concatenate([np.arange(0), *(positions for _, positions in parts)])
            updates = -(-(end - begin) // self.processes.per_update)
            sizes = np.bincount((units - begin) // self.processes.per_update, minlength=updates)
            return Share(positions, [], sizes.astype(np.int64))
        starts = [int(start) for _, positions in parts for start in positions]
        ranges = [(start, min(start + self.unit, self.total)) for start in starts]
        ranges.sort(key=lambda one: one[0] - one[1])  # the short block last: it would shift those after it
        return Share(None, ranges, np.array([sum(stop - start for start, stop in ranges)], dtype=np.int64))

    def fetch_plan(self, epoch: int, batch: int) -> FetchPlan:
        windows = self._windows(epoch, *self._span(batch))
        if not windows:
            return NO_FETCH
        key = (epoch, windows[0], windows[-1])
        if self._fetch_plan is None or self._fetch_plan[0] != key:
            now = [chunk for window in windows for chunk in self._own_chunks(epoch, window)]
            self._fetch_plan = (key, FetchPlan(now, self._own_chunks(epoch, windows[-1] + 1)))
        return self._fetch_plan[1]

    def _span(self, batch: int) -> tuple[int, int]:
        """Return the units [begin, end) of a batch."""
        begin = min(batch * self._units_per_batch, self._units)
        return begin, min(begin + self._units_per_batch, self._units)

    def _layout(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the chunks (c,) in the order of this epoch, and how many rows come before each (c + 1,)."""
        if self._layout_of_epoch is None or self._layout_of_epoch[0] != epoch:
            order = np.arange(self.chunks)
            if self.shuffle:
                order = np.random.default_rng([self.seed, epoch]).permutation(order)
            sizes = np.minimum(self.chunk, self.total - order * self.chunk)
            self._layout_of_epoch = (epoch, order, np.append(0, np.cumsum(sizes)))
        return self._layout_of_epoch[1:]

    def _bounds(self, epoch: int) -> np.ndarray:
        """Return the first unit of each window, and the number of all units."""
        return -(-self._layout(epoch)[1][self._cuts] // self.unit)

    def _windows(self, epoch: int, begin: int, end: int) -> range:
        """Return the windows that contain units ``begin..end-1``."""
        if begin >= end:
            return range(0)
        first, last = np.searchsorted(self._bounds(epoch), [begin, end - 1], side="right") - 1
        return range(int(first), int(last) + 1)

    def _own_chunks(self, epoch: int, window: int) -> list[tuple[tuple[int, int], ...]]:
        """Return the row ranges of each chunk of a window that this process fetches."""
        if window + 1 >= len(self._cuts):
            return []
        chunks = np.arange(self._cuts[window], self._cuts[window + 1])
        own = chunks[chunks % self.processes.world == self.processes.rank]
        starts = (self._layout(epoch)[0][own] * self.chunk).tolist()
        return [tuple(self.rows.ranges(start, min(start + self.chunk, self.total))) for start in starts]

    def _own_units(self, epoch: int, begin: int, end: int, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Return this process's units among ``begin..end-1`` in a window: the index of each in the epoch, and
        its position."""
        low, high = self._bounds(epoch)[window : window + 2].tolist()
        units = np.arange(max(begin, low), min(end, high))
        order, starts = self._layout(epoch)
        if self.shuffle:
            drawn = low + shuffled(units - low, high - low, self.seed, epoch, window)
            chunk = np.searchsorted(starts, drawn, side="right") - 1
            positions = order[chunk] * self.chunk + drawn - starts[chunk]
        else:
            chunk, within = np.arange(*self._cuts[window : window + 2]), np.arange(0, self.chunk, self.unit)
            blocks = (chunk * self.chunk + within[:, None]).ravel()  # one from each chunk in turn
            positions = blocks[blocks < self.total][units - low]
            chunk = positions // self.chunk
        own = chunk % self.processes.world == self.processes.rank
        return units[own], positions[own]
