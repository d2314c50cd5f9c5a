"""Rows of a harvest, from the store that the command ``harvest`` writes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seminmf_lightning.core.commands import command
from seminmf_lightning.data.shard import Shard, file_state
from seminmf_lightning.data.sources.base import Source
from seminmf_lightning.harvest.store import MANIFEST, Store, StoreError, open_tensors, sha256_of
from seminmf_lightning.io.untrusted import WHOLE_NUMBERS, read_tensor


@dataclass
class HarvestedRows(Source):
    """One layer of a store, or several layers of the same width, one after the other."""

    path: str
    layer: str | Sequence[str] | None = None
    """Name, or a list of names; None: the only layer."""
    verify: bool = False
    """Compare each shard with its sha256 in the manifest before training."""
    partial: bool = False
    """Accept an unfinished harvest: read its complete shards."""

    def open(self) -> list[Shard]:
        shards = []
        for record, file in self._files("file"):
            state = file_state(file)
            if self.verify and (digest := sha256_of(file)) != record["sha256"]:
                raise StoreError(
                    f"{file}: damaged: its sha256 is {digest}, the manifest says {record['sha256']}; "
                    f"{self._advice(record)}"
                )
            with open_tensors(file) as handle:
                rows = read_tensor(file, handle, "activations")
            if list(rows.shape) != [record["rows"], record["features"]]:
                raise StoreError(
                    f"{file}: shape {tuple(rows.shape)}, but the manifest says {record['rows']} x "
                    f"{record['features']}; {self._advice(record)}"
                )
            if len(rows):
                shards.append(Shard(str(file), rows, state))
        if not shards:
            raise StoreError(f"{self.path}: holds no rows yet: {MANIFEST} in it lists none")
        return shards

    def open_groups(self) -> np.ndarray:
        """Return the example of each row (n,)."""
        files = self._files("index")
        return np.concatenate([self._examples(record, index) for record, index in files if record["rows"]])

    def where(self, row: int) -> str:
        """Name the file of a row, its number in that file, and the example it comes from."""
        description = super().where(row)
        try:
            for record, index in self._files("index"):
                if row < record["rows"]:
                    example = int(self._examples(record, index)[row])
                    examples = Store(self.path).examples(record["shard"])
                    return f"{description} ({examples[example - record['examples'][0]]['name']})"
                row -= record["rows"]
        except (ValueError, IndexError):  # the name is optional: the message matters more
            pass
        return description

    def harvest(self) -> tuple[str, str] | None:
        layers = self.layers()
        if len(layers) > 1:
            raise StoreError(f"rows of several layers are read: {', '.join(layers)}")
        return self.path, layers[0]

    def layers(self) -> list[str]:
        """Return the names of the layers that are read."""
        return chosen_layers(self._manifest(), self.layer, self.path)

    def _manifest(self) -> dict[str, Any]:
        store = Store(self.path)
        manifest = store.manifest()
        if manifest is None:
            raise FileNotFoundError(
                f"{store.folder / MANIFEST} does not exist; {command('harvest')} output={self.path} writes it"
            )
        if not manifest["complete"]:
            if not self.partial:
                raise StoreError(
                    f"{store.folder}: this harvest is not finished; run the same {command('harvest')} again, "
                    "which resumes it, or take what there is with data.partial=true"
                )
            manifest = store.finished_manifest(manifest["settings"], manifest["plan"])
        return manifest

    def _files(self, kind: str) -> Iterator[tuple[dict[str, Any], Path]]:
        """Yield each shard's record and its file (``kind`` file or index), once the two agree."""
        manifest, store = self._manifest(), Store(self.path)
        folder = store.folder.resolve()
        for name in self.layers():
            layer = manifest["layers"][name]
            for record in layer["shards"]:
                file = store.inside(folder / record[kind])
                if record["harvest"] != manifest["plan"]["harvest"]:
                    raise StoreError(f"{file}: belongs to another harvest than {folder / MANIFEST}")
                if not os.path.exists(file):  # False also for names that are too long
                    raise StoreError(
                        f"{file}: missing; run the same {command('harvest')} again, which writes it anew"
                    )
                if kind == "file" and (size := file.stat().st_size) != record["bytes"]:
                    raise StoreError(
                        f"{file}: {size:,} bytes, but the manifest says {record['bytes']:,}; it is "
                        f"truncated or replaced; {self._advice(record)}"
                    )
                yield record | {"features": layer["features"]}, file

    def _examples(self, record: dict[str, Any], index: Path) -> np.ndarray:
        """Return the example of each row of a shard."""
        with open_tensors(index) as handle:
            examples = read_tensor(index, handle, "example", WHOLE_NUMBERS).numpy()
        first, last = record["examples"]
        if examples.shape != (record["rows"],) or examples.min() < first or examples.max() >= last:
            raise StoreError(
                f"{index}: expected the numbers of {record['rows']} examples in {first}..{last - 1}, "
                f"found others; {self._advice(record)}"
            )
        return examples

    def _advice(self, record: dict[str, Any]) -> str:
        file = Path(self.path) / record["index"]
        return f"delete {file} and run {command('harvest')} again, which writes this shard anew"


def chosen_layers(manifest: Mapping[str, Any], layer: str | Sequence[str] | None, store: str) -> list[str]:
    """Return the requested layers of a store; None requests the only one.

    Raises:
        StoreError: there is no such layer, or there are several.
    """
    layers = list(manifest["layers"])
    if layer is None:
        if len(layers) > 1:
            raise StoreError(f"{store} holds several layers: set data.layer to one of {', '.join(layers)}")
        return layers
    requested = [layer] if isinstance(layer, str) else list(layer)
    if missing := [name for name in requested if name not in layers]:
        raise StoreError(f"{store} has no layer {missing[0]!r}; it holds {', '.join(layers)}")
    return requested
