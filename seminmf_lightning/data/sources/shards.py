"""Rows of a harvest: the store that scripts/harvest.py writes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seminmf_lightning.data.sources.base import Shard, Source, file_state
from seminmf_lightning.harvest.store import MANIFEST, Store, StoreError, open_tensors, sha256_of
from seminmf_lightning.io.untrusted import WHOLE_NUMBERS, read_tensor


@dataclass
class HarvestedRows(Source):
    """One layer of a store, or several of the same width, one after the other."""

    path: str
    layer: str | Sequence[str] | None = None
    """Name, or a list of names; None takes the only one there is."""
    verify: bool = False
    """Compare each shard with its sha256 in the manifest before training."""
    partial: bool = False
    """Accept a harvest that is not finished: the shards that are whole."""

    def open(self) -> list[Shard]:
        shards = []
        for record, file in self._files("file"):
            before = file_state(file)
            if self.verify and (found := sha256_of(file)) != record["sha256"]:
                raise StoreError(
                    f"{file}: damaged: its sha256 is {found}, the manifest says {record['sha256']}; {self._again(record)}"
                )
            with open_tensors(file) as handle:
                rows = read_tensor(file, handle, "activations")
            if list(rows.shape) != [record["rows"], record["features"]]:
                raise StoreError(
                    f"{file}: shape {tuple(rows.shape)}, but the manifest says {record['rows']} x {record['features']}; "
                    f"{self._again(record)}"
                )
            if len(rows):
                shards.append(Shard(str(file), rows, before))
        if not shards:
            raise StoreError(f"{self.path}: holds no rows yet: {MANIFEST} in it lists none")
        return shards

    def open_groups(self) -> np.ndarray:
        """The example of each row."""
        parts = []
        for record, index in self._files("index"):
            if record["rows"]:
                parts.append(self._examples(record, index))
        return np.concatenate(parts)

    def where(self, row: int) -> str:
        """File and number of a row, and the example it comes from."""
        place = super().where(row)
        try:
            for record, index in self._files("index"):
                if row < record["rows"]:
                    example = int(self._examples(record, index)[row])
                    examples = Store(self.path).examples(record["shard"])
                    return f"{place} ({examples[example - record['examples'][0]]['name']})"
                row -= record["rows"]
        except (ValueError, IndexError):  # a name is not worth an error of its own
            return place
        return place

    def layers(self) -> list[str]:
        """The names of the layers that are read."""
        return chosen_layers(self._manifest(), self.layer, self.path)

    def _manifest(self) -> dict[str, Any]:
        store = Store(self.path)
        manifest = store.manifest()
        if manifest is None:
            raise FileNotFoundError(
                f"{store.folder / MANIFEST} does not exist; scripts/harvest.py output={self.path} writes it"
            )
        if not manifest["complete"]:
            if not self.partial:
                raise StoreError(
                    f"{store.folder}: this harvest is not finished; run the same scripts/harvest.py again, which goes on, "
                    "or take what there is with data.partial=true"
                )
            manifest = store.finished_manifest(manifest["settings"], manifest["plan"])
        return manifest

    def _files(self, kind: str) -> Iterator[tuple[dict[str, Any], Path]]:
        """Each shard's record and its file, checked against one another."""
        manifest, store = self._manifest(), Store(self.path)
        folder = store.folder.resolve()
        for layer in self.layers():
            found = manifest["layers"][layer]
            for record in found["shards"]:
                file = store.inside(folder / record[kind])
                if record["harvest"] != manifest["plan"]["harvest"]:
                    raise StoreError(f"{file}: belongs to another harvest than {folder / MANIFEST}")
                if not os.path.exists(file):  # False also of names that are too long
                    raise StoreError(
                        f"{file}: missing; run the same scripts/harvest.py again, which writes it anew"
                    )
                if kind == "file" and (size := file.stat().st_size) != record["bytes"]:
                    raise StoreError(
                        f"{file}: {size:,} bytes, but the manifest says {record['bytes']:,}; it is truncated or replaced; "
                        f"{self._again(record)}"
                    )
                yield record | {"features": found["features"]}, file

    def _examples(self, record: dict[str, Any], index: Path) -> np.ndarray:
        """The example of each row of a shard."""
        with open_tensors(index) as handle:
            examples = read_tensor(index, handle, "example", WHOLE_NUMBERS).numpy()
        first, last = record["examples"]
        if examples.shape != (record["rows"],) or examples.min() < first or examples.max() >= last:
            raise StoreError(
                f"{index}: expected the numbers of {record['rows']} examples in {first}..{last - 1}, found other ones; "
                f"{self._again(record)}"
            )
        return examples

    def _again(self, record: dict[str, Any]) -> str:
        return f"delete {Path(self.path) / record['index']} and run scripts/harvest.py again, which writes this shard anew"


def chosen_layers(manifest: Mapping[str, Any], layer: str | Sequence[str] | None, store: str) -> list[str]:
    """The layers of a store that are asked for; None asks for the only one.

    Raises:
        StoreError: there is no such layer, or several.
    """
    layers = list(manifest["layers"])
    if layer is None:
        if len(layers) > 1:
            raise StoreError(f"{store} holds several layers: set data.layer to one of {', '.join(layers)}")
        return layers
    wanted = [layer] if isinstance(layer, str) else list(layer)
    if missing := [name for name in wanted if name not in layers]:
        raise StoreError(f"{store} has no layer {missing[0]!r}; it holds {', '.join(layers)}")
    return wanted
