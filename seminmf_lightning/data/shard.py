"""A part of the rows: a tensor over a memory map, checked for changes before each read."""

from __future__ import annotations

import os
import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.rows import plain_array


class FileState(NamedTuple):
    """Size, time of the last change (ns) and inode: a changed or replaced file differs in one of them."""

    size: int
    changed_ns: int
    inode: int


def file_state(file: str | os.PathLike[str]) -> FileState:
    """Return the present state of a file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    try:
        status = os.stat(file)
    except FileNotFoundError as error:
        message = f"{file}: no such file; it was deleted, or is a link to a file that was deleted"
        raise FileNotFoundError(message) from error
    return FileState(status.st_size, status.st_mtime_ns, status.st_ino)


class Shard(NamedTuple):
    """Some of the rows, and the name that error messages show.

    ``opened`` is the state of the file before it was opened, or None if the rows are not in a file.
    ``swapped`` is the type of numbers in the other byte order, whose bits ``rows`` holds as whole numbers.
    ``file`` is the path of the file, if it holds more shards than one; None: ``name``.
    """

    name: str
    rows: Tensor  # (n, d), any real dtype
    opened: FileState | None = None
    swapped: torch.dtype | None = None
    file: str | None = None

    @property
    def dtype(self) -> torch.dtype:
        return self.swapped or self.rows.dtype

    def gather(self, at: Tensor) -> Tensor:
        """Return rows by number (m,); raise ValueError if the file has changed since it was opened."""
        return self._decoded(gather(self._unchanged(), at))

    def slice(self, start: int, stop: int) -> Tensor:
        """Return rows ``start..stop-1``, a view if they are in this machine's byte order."""
        return self._decoded(self._unchanged()[start:stop])

    def _decoded(self, rows: Tensor) -> Tensor:
        return rows if self.swapped is None else torch.from_numpy(rows.numpy().byteswap()).view(self.swapped)

    def _unchanged(self) -> Tensor:
        """Return all rows; raise ValueError if the file has changed since it was opened.

        Reading a page that a truncation removed kills the process (SIGBUS), and nothing can catch that:
        hence a check before each read. Rows of a replaced file could still be read, but a resumed run or a
        report would read different ones.
        """
        if self.opened is None:
            return self.rows
        file = self.file or self.name
        try:
            now = file_state(file)
        except FileNotFoundError:
            what = "deleted"
        else:
            if now == self.opened:
                return self.rows
            what = "truncated" if now.size < self.opened.size else "changed"
            if now.inode != self.opened.inode:
                what = "replaced"
        raise ValueError(
            f"{file}: was {what} while it was being read; leave files alone until a run has ended. "
            "Put it back and resume from the last checkpoint, or start another run"
        )


def array_shard(name: str, array: np.ndarray, opened: FileState | None = None) -> Shard:
    """Make a shard of an array or memory map, copied only where torch needs it (reversed, long double).

    Raises:
        TypeError, ValueError: numbers that are neither float, integer nor boolean; masked entries.
    """
    array = plain_array(name, array)
    if array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = np.ascontiguousarray(array)
    swapped = None
    if not array.dtype.isnative:
        # Map the bits as whole numbers of the same size: rows are swapped when read, never all at once.
        swapped = torch.from_numpy(np.empty(0, array.dtype.newbyteorder("="))).dtype
        array = array.view(f"i{array.dtype.itemsize}")
    with warnings.catch_warnings():  # about read-only memory; a source never writes
        warnings.filterwarnings("ignore", ".*not writable.*", UserWarning)
        return Shard(name, torch.from_numpy(array), opened, swapped)


def gather(rows: Tensor, at: Tensor) -> Tensor:
    """Return rows by number (m,)."""
    # index_select is four times faster than indexing, but torch lacks it for unsigned types above one byte.
    return rows.index_select(0, at) if rows.is_floating_point() else rows[at]
