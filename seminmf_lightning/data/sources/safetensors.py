"""Rows in ``.safetensors`` shards, memory-mapped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open

from seminmf_lightning.data.paths import Paths, find_files
from seminmf_lightning.data.shard import Shard, file_state
from seminmf_lightning.data.sources.base import Source
from seminmf_lightning.data.splits import numbered_apart
from seminmf_lightning.io.untrusted import WHOLE_NUMBERS, Refused, open_safetensors, read_tensor


@dataclass
class SafetensorsRows(Source):
    """Shards that hold one matrix (n, d) each, of any float or integer type, bfloat16 included."""

    path: Paths
    key: str | None = None
    """Name of the tensor; None: ``activations``, or the only 2-D tensor."""
    group_key: str = "group"
    """Name of an optional tensor (n,) of whole numbers: the image or document of each row."""

    suffix = ".safetensors"

    def open(self) -> list[Shard]:
        shards = []
        for file in find_files(self.path, ".safetensors"):
            state = file_state(file)
            with open_safetensors(file) as handle:
                shards.append(Shard(str(file), read_tensor(file, handle, self._key(file, handle)), state))
        return shards

    def open_groups(self) -> np.ndarray | None:
        parts: list[np.ndarray] = []
        without: list[str] = []
        for shard in self.shards:
            file = Path(shard.name)
            with open_safetensors(file) as handle:
                if self.group_key not in handle.keys():  # noqa: SIM118  (not a mapping)
                    without.append(shard.name)
                    continue
                group = read_tensor(file, handle, self.group_key, WHOLE_NUMBERS).numpy()
            if group.shape != (n := len(shard.rows),):
                raise Refused(f"{file}: {self.group_key!r} has shape {group.shape}, but there are {n} rows")
            parts.append(group)
        if parts and without:
            raise Refused(
                f"{without[0]}: no tensor {self.group_key!r}, but other shards have one; either all "
                "shards need it or none"
            )
        return numbered_apart(parts) if parts else None

    def _key(self, file: Path, handle: safe_open) -> str:
        ranks = {name: len(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118
        return tensor_of_rows(str(file), ranks, self.key)


def tensor_of_rows(file: str, ranks: Mapping[str, int], key: str | None) -> str:
    """Return the name of the tensor that holds the rows, given the number of dimensions of each tensor.

    Raises:
        Refused: there is no tensor ``key``, or without a key the choice is ambiguous.

    >>> tensor_of_rows("a.safetensors", {"bias": 1, "x": 2}, None)
    'x'
    """
    if key is not None:
        if key not in ranks:
            raise Refused(f"{file}: no tensor {key!r}; it holds {', '.join(ranks) or 'none'}")
        return key
    matrices = [name for name, rank in ranks.items() if rank == 2]
    if "activations" in ranks:
        return "activations"
    if len(matrices) == 1:
        return matrices[0]
    if len(ranks) == 1:
        return next(iter(ranks))  # not 2-D: refused by the check of shapes
    names = ", ".join(ranks) or "none"
    raise Refused(f"{file}: which tensor holds the rows? Set data.key to one of {names}")
