"""Base class of sources: rows of one matrix A (n, d), by number, from shards, never all in memory at once.

Every shard is a torch tensor over a memory map, so the data is in the page cache, not in the process. The
shards of a source that fetches its rows (:attr:`Source.chunking`) are on the device ``meta``: they have a
shape but no data.

A new source is one file in this folder with a dataclass derived from :class:`Source`, whose fields are its
settings, and one YAML file in ``configs/data`` with its ``name``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.data.shard import Shard, gather

Ranges = tuple[tuple[int, int], ...]
"""Half-open ranges of row numbers, in order, that form one chunk."""


class Chunking(NamedTuple):
    """Rows per fetch, and rows kept in memory to be shuffled together."""

    rows: int
    window: int


class FetchPlan(NamedTuple):
    """Chunks to read next, and chunks to fetch in the background."""

    now: list[Ranges]
    soon: list[Ranges]


NO_FETCH = FetchPlan([], [])


class Source(ABC):
    """Rows (n, d) in shards. It opens on first use, and again in each process that it is sent to."""

    suffix: ClassVar[str | None] = None
    """Files with this suffix, given to a data module as plain paths, are read by this source."""

    def prepare(self) -> None:
        """Prepare in one process, before others open the source; for example, fill a cache."""

    @abstractmethod
    def open(self) -> list[Shard]:
        """Open the shards.

        Raises:
            FileNotFoundError, ValueError: the message names the file, what was found and what is accepted.
        """

    def open_groups(self) -> np.ndarray | None:
        """Return the image or document of each row (n,), or None if the source does not know them."""
        return None

    def harvest(self) -> tuple[str, str] | None:
        """Return the folder and layer of the harvest that knows each row's token or patch, or None.

        Raises:
            ValueError: the rows are of several layers, or the harvest cannot be read.
        """
        return None

    @property
    def chunking(self) -> Chunking | None:
        """How rows are fetched; None if any row can be read at once."""
        return None

    def prefetch(self, plan: FetchPlan) -> None:
        """Prefetch these rows next; replaces an earlier plan."""

    def verify_share(self, rank: int, world: int) -> None:
        """Compare this process's share of the shards with their checksums, if the settings ask for that."""

    @cached_property
    def shards(self) -> list[Shard]:
        """The opened shards, all of the same width."""
        shards = self.open()
        for shard in shards:
            _check(shard, shards[0])
        return shards

    @cached_property
    def _starts(self) -> np.ndarray:
        """Row number at which each shard starts, and the number of all rows."""
        return np.cumsum([0] + [len(shard.rows) for shard in self.shards])

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memory map would be a copy of its data.
        return {name: value for name, value in self.__dict__.items() if name not in ("shards", "_starts")}

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def features(self) -> int:
        """The width d of a row."""
        return self.shards[0].rows.shape[1]

    def read(self, rows: np.ndarray) -> Tensor:
        """Read rows by number, in the order given, as float32, or as float64 if any shard is stored so."""
        shards = self.shards
        if len(shards) == 1:
            return _real(shards[0].gather(torch.from_numpy(rows)))
        shard_of = self.shard_of(rows)
        return self._collect(
            lambda index, at: shards[index].gather(at), shard_of, rows - self._starts[shard_of]
        )

    def _collect(
        self, gather_part: Callable[[int, Tensor], Tensor], part_of: np.ndarray, local: np.ndarray
    ) -> Tensor:
        """Gather row ``local[i]`` of part ``part_of[i]`` for each i."""
        # One gather per part, then one gather that restores the requested order.
        order = np.argsort(part_of, kind="stable")
        cuts = np.searchsorted(part_of[order], np.arange(part_of.max(initial=-1) + 2))
        gathered = []
        for index in np.flatnonzero(np.diff(cuts)).tolist():
            rows = local[order[cuts[index] : cuts[index + 1]]]
            gathered.append(gather_part(index, torch.from_numpy(rows)))
        if not gathered:
            return torch.empty(0, self.features, dtype=self._dtype())
        if len({part.dtype for part in gathered}) > 1:
            gathered = [part.to(self._dtype()) for part in gathered]
        back = torch.empty(len(local), dtype=torch.int64)
        back[torch.from_numpy(order)] = torch.arange(len(local))
        return gather(torch.cat(gathered), back).to(self._dtype())

    def read_range(self, start: int, stop: int) -> Tensor:
        """Read rows ``start..stop-1``, as a view of the file if they lie in one shard and need no
        conversion."""
        parts = []
        for shard, begin in zip(self.shards, self._starts, strict=False):
            low, high = max(start - begin, 0), min(stop - begin, len(shard.rows))
            if low < high:
                parts.append(_real(shard.slice(low, high)).to(self._dtype()))
        if len(parts) == 1:
            return parts[0]
        return torch.cat(parts or [torch.empty(0, self.features, dtype=self._dtype())])

    @property
    def converts(self) -> bool:
        """Whether rows are stored in another type than they are returned in, so that reading copies them."""
        return any(shard.rows.dtype not in (torch.float32, torch.float64) for shard in self.shards)

    def shard_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the index of the shard (m,) that holds each row (m,)."""
        return np.searchsorted(self._starts, rows, side="right") - 1

    def locate(self, row: int) -> tuple[str, int]:
        """Return the file of a row and its number in that file."""
        index = int(self.shard_of(np.array([row]))[0])
        return self.shards[index].name, row - int(self._starts[index])

    def where(self, row: int) -> str:
        """Name the file of a row and its number in that file, for a message."""
        name, local = self.locate(row)
        return f"{name}, row {local}"

    def _dtype(self) -> torch.dtype:
        double = any(shard.dtype == torch.float64 for shard in self.shards)
        return torch.float64 if double else torch.float32


def _real(rows: Tensor) -> Tensor:
    return rows if rows.dtype in (torch.float32, torch.float64) else rows.to(torch.float32)


def _check(shard: Shard, first: Shard) -> None:
    name, shape, dtype = shard.name, tuple(shard.rows.shape), shard.dtype
    if len(shape) != 2:
        advice = "; flatten images or tokens to rows first" if len(shape) > 2 else ""
        raise ValueError(
            f"{name}: expected a 2-D array (rows, features), found {len(shape)}-D {shape}{advice}"
        )
    if dtype.is_complex:
        raise ValueError(f"{name}: expected real numbers, found {dtype}")
    if 0 in shape:
        raise ValueError(f"{name}: the array is empty, its shape is {shape}")
    if shape[1] != (width := first.rows.shape[1]):
        raise ValueError(
            f"{name}: rows of {shape[1]} features, but {first.name} has {width}; "
            "all shards must have the same width"
        )
