"""Where rows come from: shards of one matrix A (n, d), read by row number, never all at once.

Every shard is a torch tensor over a memory map, so that the page cache holds the data and the process does
not; a source that fetches its rows (``chunking``) has tensors without data, which give their shapes, and
reads in its own way. A new source is one file with a subclass of :class:`Source` and one YAML under
``configs/data/``.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Stamp(NamedTuple):
    """What tells a file from another one, and from itself before it was written to."""

    size: int
    changed_ns: int
    inode: int


def stamp(file: str | os.PathLike[str]) -> Stamp:
    """The stamp of a file as it is.

    Raises:
        FileNotFoundError: there is none.
    """
    try:
        found = os.stat(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{file}: no such file; it was deleted, or is a link to one that was"
        ) from error
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ino)


class Shard(NamedTuple):
    """A part of the rows, under a name that an error message can show."""

    name: str
    rows: Tensor  # (n, d), any real dtype
    opened: Stamp | None = None  # of the file called ``name``, from before it was opened; None: not a file

    def unchanged(self) -> Tensor:
        """The rows, after :meth:`check_unchanged`."""
        self.check_unchanged()
        return self.rows

    def check_unchanged(self) -> None:
        """Raise ValueError if the file is no longer as it was when it was opened.

        Touching a mapped page that a truncation took away kills the process (SIGBUS), which nothing can
        catch: hence a look before each read, though one in the midst of a batch still does.  Of a file that
            was replaced the old rows could be
        read on, but a run that is resumed, or the report, would meet other ones.
        """
        if self.opened is None:
            return
        try:
            now = stamp(self.name)
        except FileNotFoundError:
            what = "deleted"
        else:
            if now == self.opened:
                return
            what = (
                "replaced"
                if now.inode != self.opened.inode
                else "truncated"
                if now.size < self.opened.size
                else "changed"
            )
        raise ValueError(
            f"{self.name}: was {what} while it was being read; leave files alone until a run has ended. "
            "Put it back and resume from the last checkpoint, or start another run"
        )


Ranges = tuple[tuple[int, int], ...]
"""Rows ``start..stop-1``, ..., in order."""


class Chunking(NamedTuple):
    """How rows come that are fetched: so many rows at once, and so many kept at hand to be mixed."""

    rows: int
    window: int


class Wanted(NamedTuple):
    """Chunks of rows that are about to be read, and those to fetch meanwhile."""

    now: list[Ranges]
    soon: list[Ranges]


NOTHING = Wanted([], [])


class Source(ABC):
    """Rows (n, d) in shards.  Opened on first use, and again in each process it is sent to."""

    def prepare(self) -> None:
        """Work that one process does once before any other opens the source, such as filling a cache."""

    @abstractmethod
    def open(self) -> list[Shard]:
        """Open the shards.

        Raises:
            FileNotFoundError, ValueError: naming the file, what was found and what is accepted.
        """

    def open_groups(self) -> np.ndarray | None:
        """For each row the image or document it belongs to (n,), where the source knows."""
        return None

    @property
    def chunking(self) -> Chunking | None:
        """How rows are fetched; None where any row is at hand."""
        return None

    def expect(self, wanted: Wanted) -> None:
        """Be told which rows are read next; those of another call are forgotten."""

    def verify_share(self, rank: int, world: int) -> None:
        """Compare this process's share of the shards with what their writer said they hold, where that was
        asked for."""

    @property
    def shards(self) -> list[Shard]:
        if "_shards" not in self.__dict__:
            shards = self.open()
            for shard in shards:
                _check(shard, shards[0])
            self._shards = shards
            self._starts = np.cumsum([0] + [len(shard.rows) for shard in shards])
        return self._shards

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memory map is a copy of its data.
        return {name: value for name, value in self.__dict__.items() if name not in ("_shards", "_starts")}

    def __len__(self) -> int:
        return sum(len(shard.rows) for shard in self.shards)

    @property
    def features(self) -> int:
        """d."""
        return self.shards[0].rows.shape[1]

    def read(self, rows: np.ndarray) -> Tensor:
        """Rows by number, in the order given: float32, or float64 where they are stored so."""
        shards = self.shards
        if len(shards) == 1:
            shards[0].check_unchanged()
            return _real(_gather(shards[0].rows, torch.from_numpy(rows)))
        shard_of = self.shard_of(rows)
        return self._collect(lambda index: shards[index].unchanged(), shard_of, rows - self._starts[shard_of])

    def _collect(self, part: Callable[[int], Tensor], part_of: np.ndarray, local: np.ndarray) -> Tensor:
        """Row ``local[i]`` of ``part(part_of[i])`` for each i."""
        order = np.argsort(part_of, kind="stable")
        cuts = np.searchsorted(part_of[order], np.arange(part_of.max(initial=-1) + 2))
        found = []
        for index in np.flatnonzero(np.diff(cuts)).tolist():
            at = local[order[cuts[index] : cuts[index + 1]]]
            found.append(_gather(part(index), torch.from_numpy(at)))
        if not found:
            return torch.empty(0, self.features, dtype=self._dtype())
        if len({part.dtype for part in found}) > 1:
            found = [part.to(self._dtype()) for part in found]
        back = torch.empty(len(local), dtype=torch.int64)
        back[torch.from_numpy(order)] = torch.arange(len(local))
        return _gather(torch.cat(found), back).to(self._dtype())

    def read_range(self, start: int, stop: int) -> Tensor:
        """Rows ``start..stop-1``: a view of the file where its type and the shard borders allow."""
        parts = []
        for shard, begin in zip(self.shards, self._starts, strict=False):
            low, high = max(start - begin, 0), min(stop - begin, len(shard.rows))
            if low < high:
                shard.check_unchanged()
                parts.append(_real(shard.rows[low:high]).to(self._dtype()))
        return (
            parts[0]
            if len(parts) == 1
            else torch.cat(parts or [torch.empty(0, self.features, dtype=self._dtype())])
        )

    @property
    def converts(self) -> bool:
        """Whether rows are stored in another type than they are read in, so that reading copies them."""
        return any(shard.rows.dtype not in (torch.float32, torch.float64) for shard in self.shards)

    def shard_of(self, rows: np.ndarray) -> np.ndarray:
        """The shard (m,) of each row (m,)."""
        assert self.shards  # opened
        return np.searchsorted(self._starts, rows, side="right") - 1

    def place(self, row: int) -> tuple[str, int]:
        """A row's file and its number in it."""
        index = int(self.shard_of(np.array([row]))[0])
        return self.shards[index].name, row - int(self._starts[index])

    def where(self, row: int) -> str:
        """Name a row for a person: its file and its number in it."""
        name, local = self.place(row)
        return f"{name}, row {local}"

    def _dtype(self) -> torch.dtype:
        double = any(shard.rows.dtype == torch.float64 for shard in self.shards)
        return torch.float64 if double else torch.float32


def _gather(rows: Tensor, at: Tensor) -> Tensor:
    # Four times faster than indexing, but not there for unsigned types of two bytes and more.
    return rows.index_select(0, at) if rows.is_floating_point() else rows[at]


def _real(rows: Tensor) -> Tensor:
    return rows if rows.dtype in (torch.float32, torch.float64) else rows.to(torch.float32)


def _check(shard: Shard, first: Shard) -> None:
    rows = shard.rows
    if rows.ndim != 2:
        raise ValueError(
            f"{shard.name}: expected a 2-D array (rows, features), found {rows.ndim}-D {tuple(rows.shape)}"
            + ("; flatten images or tokens to rows first" if rows.ndim > 2 else "")
        )
    if rows.is_complex():
        raise ValueError(f"{shard.name}: expected real numbers, found {rows.dtype}")
    if 0 in rows.shape:
        raise ValueError(f"{shard.name}: the array is empty, its shape is {tuple(rows.shape)}")
    if rows.shape[1] != first.rows.shape[1]:
        raise ValueError(
            f"{shard.name}: rows of {rows.shape[1]} features, but {first.name} has {first.rows.shape[1]}; "
            "all shards must have the same width"
        )
