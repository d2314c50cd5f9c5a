"""Where rows come from: shards of one matrix A (n, d), read by row number, never all at once.

Every shard is a torch tensor over a memory map, so that the page cache holds the data and the process does not.
A new source is one file with a subclass of :class:`Source` and one YAML under ``configs/data/``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Shard(NamedTuple):
    """A part of the rows, under a name that an error message can show."""

    name: str
    rows: Tensor  # (n, d), any real dtype


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
            return _real(_gather(shards[0].rows, torch.from_numpy(rows)))
        shard_of = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(shard_of, kind="stable")
        cuts = np.searchsorted(shard_of[order], np.arange(len(shards) + 1))
        parts = []
        for index in np.flatnonzero(np.diff(cuts)):
            local = rows[order[cuts[index] : cuts[index + 1]]] - self._starts[index]
            parts.append(_gather(shards[index].rows, torch.from_numpy(local)))
        if not parts:
            return torch.empty(0, self.features, dtype=self._dtype())
        if len({part.dtype for part in parts}) > 1:
            parts = [part.to(self._dtype()) for part in parts]
        back = torch.empty(len(rows), dtype=torch.int64)
        back[torch.from_numpy(order)] = torch.arange(len(rows))
        return _gather(torch.cat(parts), back).to(self._dtype())

    def read_range(self, start: int, stop: int) -> Tensor:
        """Rows ``start..stop-1``: a view of the file where its type and the shard borders allow."""
        parts = []
        for shard, begin in zip(self.shards, self._starts, strict=False):
            low, high = max(start - begin, 0), min(stop - begin, len(shard.rows))
            if low < high:
                parts.append(_real(shard.rows[low:high]).to(self._dtype()))
        return parts[0] if len(parts) == 1 else torch.cat(parts or [torch.empty(0, self.features, dtype=self._dtype())])

    @property
    def converts(self) -> bool:
        """Whether rows are stored in another type than they are read in, so that reading copies them."""
        return any(shard.rows.dtype not in (torch.float32, torch.float64) for shard in self.shards)

    def where(self, row: int) -> str:
        """Name a row for a person: its file and its number in it."""
        shards = self.shards
        index = int(np.searchsorted(self._starts, row, side="right")) - 1
        return f"{shards[index].name}, row {row - int(self._starts[index])}"

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
