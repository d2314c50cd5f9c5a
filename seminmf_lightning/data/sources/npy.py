"""Rows in ``.npy`` files, memory-mapped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from seminmf_lightning.data.paths import Paths, find_files
from seminmf_lightning.data.sources.base import Shard, Source, file_state
from seminmf_lightning.io.untrusted import open_npy


@dataclass
class NpyRows(Source):
    """One file, several, or a glob of ``.npy`` arrays (n, d) of float16, float32, float64 or integers."""

    path: Paths
    groups: str | None = None
    """A ``.npy`` file (n,): the image or document of each row, all files in order: whole numbers or names.
    Rows of one stay together."""

    def open(self) -> list[Shard]:
        found = [(file, file_state(file), open_npy(file)) for file in find_files(self.path, ".npy")]
        return [Shard(str(file), torch.from_numpy(_native(array)), before) for file, before, array in found]

    def open_groups(self) -> np.ndarray | None:
        return None if self.groups is None else open_npy(Path(self.groups).expanduser(), kinds="iubSU")


def _native(array: np.ndarray) -> np.ndarray:
    """As a type that torch has: it knows neither a foreign byte order nor a long double."""
    if array.dtype.isnative and array.dtype.itemsize <= 8:
        return array
    return array.astype(np.float64 if array.dtype.itemsize >= 8 else np.float32)
