"""Rows in ``.safetensors`` shards, memory-mapped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from seminmf_lightning.data.files import Paths, find_files
from seminmf_lightning.data.source import Shard, Source


@dataclass
class SafetensorsRows(Source):
    """Shards holding one matrix (n, d) each: any float or integer type, bfloat16 included."""

    path: Paths
    key: str | None = None
    """Name of the tensor; None takes ``activations``, or the only 2-D tensor there is."""
    group_key: str = "group"
    """Name of an optional tensor (n,): the image or document of each row."""

    def open(self) -> list[Shard]:
        shards = []
        for file in find_files(self.path, ".safetensors"):
            with _open(file) as handle:  # its tensors are views of the mapped file, and keep it mapped
                shards.append(Shard(str(file), handle.get_tensor(self._key(file, handle))))
        return shards

    def open_groups(self) -> np.ndarray | None:
        groups = []
        for file in find_files(self.path, ".safetensors"):
            with _open(file) as handle:
                if self.group_key not in handle.keys():  # noqa: SIM118  (not a mapping)
                    return None
                groups.append(handle.get_tensor(self.group_key).numpy())
        # Groups are numbered within their shard: shift them so that shards do not share any.
        shift, shifted = 0, []
        for group in groups:
            shifted.append(group.astype(np.int64) + shift)
            shift = int(shifted[-1].max(initial=shift)) + 1
        return np.concatenate(shifted)

    def _key(self, file: Path, handle: safe_open) -> str:
        names = list(handle.keys())
        if self.key is not None:
            if self.key not in names:
                raise ValueError(f"{file}: no tensor {self.key!r}; it holds {', '.join(names) or 'none'}")
            return self.key
        matrices = [name for name in names if len(handle.get_slice(name).get_shape()) == 2]
        if "activations" in names:
            return "activations"
        if len(matrices) == 1:
            return matrices[0]
        if len(names) == 1:
            return names[0]  # of another rank: the check of shapes says so
        raise ValueError(f"{file}: which tensor holds the rows? Set data.key to one of {', '.join(names) or 'none'}")


def _open(file: Path) -> safe_open:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{file}: not a whole .safetensors file ({file.stat().st_size:,} bytes; {error}); "
            "it may be truncated, empty or of another format"
        ) from error
