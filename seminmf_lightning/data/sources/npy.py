"""Rows in ``.npy`` files, memory-mapped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seminmf_lightning.data.paths import Paths, find_files
from seminmf_lightning.data.shard import Shard, array_shard, file_state
from seminmf_lightning.data.sources.base import Source
from seminmf_lightning.io.untrusted import open_npy


@dataclass
class NpyRows(Source):
    """One file, several, or a glob of ``.npy`` arrays (n, d) of floating-point numbers or integers."""

    path: Paths
    groups: str | None = None
    """A ``.npy`` file (n,) of whole numbers or names: the image or document of each row of all files in
    order. Rows of one group are held out together."""
    suffix = ".npy"

    def open(self) -> list[Shard]:
        files = [(file, file_state(file)) for file in find_files(self.path, ".npy")]
        return [array_shard(str(file), open_npy(file), state) for file, state in files]

    def open_groups(self) -> np.ndarray | None:
        return None if self.groups is None else open_npy(Path(self.groups).expanduser(), kinds="iubSU")
