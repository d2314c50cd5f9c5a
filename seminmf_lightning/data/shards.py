"""Rows of a harvest: the store that scripts/harvest.py writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from seminmf_lightning.data.source import Shard, Source
from seminmf_lightning.harvest.job import finished_manifest
from seminmf_lightning.harvest.store import MANIFEST, Store, StoreError, open_tensors, sha256_of


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
            if self.verify and (found := sha256_of(file)) != record["sha256"]:
                raise StoreError(
                    f"{file}: damaged: its sha256 is {found}, the manifest says {record['sha256']}; {self._again(record)}"
                )
            with open_tensors(file) as handle:
                try:
                    rows = handle.get_tensor("activations")
                except SafetensorError as error:
                    raise StoreError(f"{file}: holds no `activations` ({error}); {self._again(record)}") from error
            if list(rows.shape) != [record["rows"], record["features"]]:
                raise StoreError(
                    f"{file}: shape {tuple(rows.shape)}, but the manifest says {record['rows']} x {record['features']}; "
                    f"{self._again(record)}"
                )
            if len(rows):
                shards.append(Shard(str(file), rows))
        if not shards:
            raise StoreError(f"{self.path}: holds no rows yet")
        return shards

    def open_groups(self) -> np.ndarray:
        """The example of each row."""
        parts = []
        for record, index in self._files("index"):
            if record["rows"]:
                with open_tensors(index) as handle:
                    parts.append(handle.get_tensor("example").numpy())
        return np.concatenate(parts)

    def where(self, row: int) -> str:
        """File and number of a row, and the example it comes from."""
        place = super().where(row)
        try:
            for record, index in self._files("index"):
                if row < record["rows"]:
                    with open_tensors(index) as handle:
                        example = int(handle.get_slice("example")[row : row + 1][0])
                    examples = Store(self.path).examples(record["shard"])
                    return f"{place} ({examples[example - record['examples'][0]]['name']})"
                row -= record["rows"]
        except StoreError:  # a name is not worth an error of its own
            return place
        return place

    def layers(self) -> list[str]:
        """The names of the layers that are read."""
        layers = list(self._manifest()["layers"])
        if self.layer is None:
            if len(layers) > 1:
                raise StoreError(f"{self.path} holds several layers: set data.layer to one of {', '.join(layers)}")
            return layers
        wanted = [self.layer] if isinstance(self.layer, str) else list(self.layer)
        if missing := [layer for layer in wanted if layer not in layers]:
            raise StoreError(f"{self.path} has no layer {missing[0]!r}; it holds {', '.join(layers)}")
        return wanted

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
            manifest = finished_manifest(store, manifest["settings"], manifest["plan"])
        return manifest

    def _files(self, kind: str) -> Iterator[tuple[dict[str, Any], Path]]:
        """Each shard's record and its file, checked against one another."""
        manifest, folder = self._manifest(), Store(self.path).folder.resolve()
        for layer in self.layers():
            found = manifest["layers"][layer]
            for record in found["shards"]:
                file = folder / record[kind]
                if not file.resolve().is_relative_to(folder):
                    raise StoreError(f"{folder / MANIFEST}: {record[kind]!r} leaves the store's folder; it was not opened")
                if record["harvest"] != manifest["plan"]["harvest"]:
                    raise StoreError(f"{file}: belongs to another harvest than {folder / MANIFEST}")
                if not file.exists():
                    raise StoreError(f"{file}: missing; run the same scripts/harvest.py again, which writes it anew")
                if kind == "file" and (size := file.stat().st_size) != record["bytes"]:
                    raise StoreError(
                        f"{file}: {size:,} bytes, but the manifest says {record['bytes']:,}; it is truncated or replaced; "
                        f"{self._again(record)}"
                    )
                yield record | {"features": found["features"]}, file

    def _again(self, record: dict[str, Any]) -> str:
        return f"delete {Path(self.path) / record['index']} and run scripts/harvest.py again, which writes this shard anew"
