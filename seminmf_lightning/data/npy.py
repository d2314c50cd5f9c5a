"""Rows in ``.npy`` files, memory-mapped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from seminmf_lightning.data.files import Paths, find_files
from seminmf_lightning.data.source import Shard, Source


@dataclass
class NpyRows(Source):
    """One file, several, or a glob of ``.npy`` arrays (n, d) of float16, float32, float64 or integers."""

    path: Paths
    groups: str | None = None
    """A ``.npy`` file (n,): the image or document of each row, all files in order.  Rows of one stay together."""

    def open(self) -> list[Shard]:
        return [Shard(str(file), torch.from_numpy(_open(file))) for file in find_files(self.path, ".npy")]

    def open_groups(self) -> np.ndarray | None:
        return None if self.groups is None else np.load(self.groups, mmap_mode="r", allow_pickle=False)


def _open(file: Path) -> np.ndarray:
    try:
        # Copy-on-write, because torch warns of memory it must not write to; nothing here writes.
        array = np.load(file, mmap_mode="c", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        size = file.stat().st_size if file.exists() else 0
        raise ValueError(
            f"{file}: not a whole .npy array ({size:,} bytes; {error}); it may be truncated, empty or of another format"
        ) from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{file}: expected one array, found an archive; save it with numpy.save")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{file}: expected float or integer numbers, found dtype {array.dtype}")
    if not array.dtype.isnative or array.dtype.itemsize > 8:  # foreign byte order, long double: torch has neither
        array = array.astype(np.float64 if array.dtype.itemsize >= 8 else np.float32)
    return array
