"""Store rows on disk in shards that appear complete or not at all, and a manifest that describes them.

    <store>/manifest.json                          model, layers, preprocessing, rows, means, checksums
    <store>/examples/000000.jsonl                  name and text (or size) of each example of shard 0
    <store>/<layer>/000000.safetensors             `activations` (m, d)
    <store>/<layer>/index/000000.safetensors       a column (m,) for each part of a row's origin

A shard holds a fixed range of examples, so any process may write it, and a killed harvest resumes with the
missing shards.  The index is written last: where it exists, the shard is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from seminmf_lightning.harvest.manifest import (
    FORMAT,
    MANIFEST,
    RECORD,
    StoreError,
    parse_manifest,
    shard_count,
)
from seminmf_lightning.io.atomic import whole_file
from seminmf_lightning.io.schema import conform
from seminmf_lightning.io.untrusted import WHOLE_NUMBERS, file_size, open_safetensors, parse_json, read_tensor

SUMMED_ROWS = 2048
"""Rows summed in float32 before they are added in float64."""
LISTED_SKIPPED = 1000
"""Skipped examples that the manifest lists by name."""
EXAMPLE = {"example": int, "name": str, "text?": str, "size?": [int], "region?": [float], "skipped?": str}


class ShardFiles(NamedTuple):
    """The two files of one shard of one layer."""

    activations: Path
    origin: Path


class Store:
    """A folder of harvested rows."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(os.path.expanduser(folder))

    def files(self, layer: str, shard: int) -> ShardFiles:
        """Return the paths of a shard, whether it exists or not."""
        folder = self.folder / folder_name(layer)
        return ShardFiles(folder / f"{shard:06d}.safetensors", folder / "index" / f"{shard:06d}.safetensors")

    def examples_file(self, shard: int) -> Path:
        return self.folder / "examples" / f"{shard:06d}.jsonl"

    # --- the manifest

    def manifest(self) -> dict[str, Any] | None:
        """Read the manifest; None if there is none.

        Raises:
            StoreError: it is not a manifest that this version reads.
        """
        path = self.folder / MANIFEST
        return parse_manifest(_bytes(path), path) if path.exists() else None

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        write_whole(self.folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())

    def finished_manifest(self, settings: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
        """Describe the shards on disk: rows, means and checksums of each layer."""
        layers: dict[str, Any] = {}
        for layer, width in plan["widths"].items():
            records, total, norms = [], torch.zeros((), dtype=torch.float64), 0.0
            for shard in (shard for shard in self.shards(layer) if shard < shard_count(plan)):
                record = self.record(layer, shard)
                if record is None:
                    continue
                files = self.files(layer, shard)
                names = {"file": files.activations, "index": files.origin}
                relative = {key: str(path.relative_to(self.folder)) for key, path in names.items()}
                records.append({"shard": shard} | relative | record)
                if len(row_sum := self.columns(layer, shard)["sum"]) != width:
                    raise StoreError(
                        f"{files.origin}: the sum of rows has {len(row_sum)} features; the plan says {width}"
                    )
                total = total + row_sum
                norms += record["norm_sum"]
            rows = sum(record["rows"] for record in records)
            layers[layer] = {
                "features": width, "rows": rows, "mean_row_norm": norms / max(rows, 1),
                "filtered": sum(record["filtered"] for record in records),
                "mean": (total / max(rows, 1)).tolist() if records else [], "shards": records,
            }  # fmt: skip
        present = sorted({record["shard"] for layer in layers.values() for record in layer["shards"]})
        skipped = [record for shard in present for record in self.examples(shard) if "skipped" in record]
        complete = all(len(layer["shards"]) == shard_count(plan) for layer in layers.values())
        return {
            "format": FORMAT, "complete": complete, "settings": settings, "plan": plan,
            "skipped": len(skipped), "skipped_examples": skipped[:LISTED_SKIPPED], "layers": layers,
        }  # fmt: skip

    # --- writing

    def write_shard(
        self, shard: int, layer: str, values: Tensor, index: Mapping[str, np.ndarray], record: dict[str, Any]
    ) -> None:
        """Write one shard of one layer; its record gains the number of rows, the bytes and the sha256."""
        files = self.files(layer, shard)
        content = save({"activations": values.contiguous()})
        checksum = hashlib.sha256(content).hexdigest()
        record = record | {"rows": len(values), "bytes": len(content), "sha256": checksum}
        write_whole(files.activations, content)
        columns = {name: torch.from_numpy(np.ascontiguousarray(column)) for name, column in index.items()}
        total = torch.zeros(values.shape[1], dtype=torch.float64)
        for block in values.split(SUMMED_ROWS):
            total += block.float().sum(dim=0)
        metadata = {"record": json.dumps(record, sort_keys=True)}
        write_whole(files.origin, save(columns | {"sum": total}, metadata=metadata))

    def write_examples(self, shard: int, records: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        write_whole(self.examples_file(shard), lines.encode("utf-8", errors="surrogatepass"))

    def clean(self) -> None:
        """Remove partial files of processes that no longer exist."""
        for partial in self.folder.rglob("*.partial"):
            process = partial.name.split(".")[-2]
            if not (process.isdigit() and _is_running(int(process))):
                partial.unlink(missing_ok=True)

    # --- reading

    def record(self, layer: str, shard: int) -> dict[str, Any] | None:
        """Return the record of a complete shard; None if it is missing or damaged and must be written."""
        files = self.files(layer, shard)
        if not os.path.exists(files.origin) or not os.path.exists(files.activations):
            return None
        try:
            with open_tensors(self.inside(files.origin)) as handle:
                content = (handle.metadata() or {}).get("record", "")
            record = parse_json(files.origin, content, "the index of a shard")
            conform(files.origin, record, RECORD)
        except (ValueError, OSError):
            return None
        return record if record["bytes"] == files.activations.stat().st_size else None

    def shards(self, layer: str) -> list[int]:
        """Return the numbers of the shards that have an index."""
        folder = self.files(layer, 0).origin.parent
        names = os.listdir(folder) if os.path.isdir(folder) else []
        return sorted(int(name[:-12]) for name in names if re.fullmatch(r"[0-9]{6,15}\.safetensors", name))

    def columns(self, layer: str, shard: int) -> dict[str, Tensor]:
        """Return the index of a shard: columns (m,) of integers, and the float64 ``sum`` (d,) of its rows."""
        path = self.inside(self.files(layer, shard).origin)
        with open_tensors(path) as handle:
            columns = {
                name: read_tensor(path, handle, name, ("F64",) if name == "sum" else WHOLE_NUMBERS)
                for name in handle.keys()  # noqa: SIM118  (the handle is not a mapping)
            }
        lengths = {len(column) for name, column in columns.items() if name != "sum" and column.ndim == 1}
        if "sum" not in columns or any(column.ndim != 1 for column in columns.values()) or len(lengths) > 1:
            shapes = {name: tuple(column.shape) for name, column in columns.items()}
            raise StoreError(f"{path}: expected `sum` and columns of one length, found {shapes}")
        return columns

    def examples(self, shard: int) -> list[dict[str, Any]]:
        """Return the records of the examples of a shard; skipped ones have the reason under ``skipped``."""
        path = self.inside(self.examples_file(shard))
        lines = _bytes(path).split(b"\n")
        if lines.pop():
            raise StoreError(f"{path}: its last line has no line break; it is truncated")
        return [_example(f"{path}, line {number}", line) for number, line in enumerate(lines, 1)]

    def inside(self, path: Path) -> Path:
        """Return ``path`` if it lies in the folder of the store once links are followed.

        Raises:
            StoreError: it does not.
        """
        try:
            inside = path.resolve().is_relative_to(self.folder.resolve())
        except (OSError, ValueError, RuntimeError) as error:  # an impossible name, or circular links
            raise StoreError(f"{self.folder / MANIFEST}: names an impossible file ({error})") from error
        if not inside:
            raise StoreError(f"{path}: leaves the store's folder {self.folder}; it was not opened")
        return path


def _example(where: str, line: bytes) -> dict[str, Any]:
    try:
        # A file name may be invalid Unicode: written as unpaired surrogates, and read back as such.
        text = line.decode("utf-8", errors="surrogatepass")
    except UnicodeDecodeError as error:
        raise StoreError(f"{where}: not text in UTF-8 ({error})") from error
    record = parse_json(where, text, "the record of an example")
    conform(where, record, EXAMPLE)
    region = record.get("region")
    if region is not None and not (
        len(region) == 4 and min(region[2:]) > 0 and len(record.get("size", ())) == 2
    ):
        raise StoreError(f"{where}: region must be top, left, height and width of an image of known size")
    return record


def folder_name(layer: str) -> str:
    """Return the folder name of a layer, without characters that are special in file systems.

    ``:`` becomes ``@``, which keeps ``mlp:input`` apart from a module ``mlp_input``.

    >>> folder_name("blocks.1/mlp:input")
    'blocks.1_mlp@input'
    """
    return re.sub(r"[^\w.@-]", "_", layer.replace(":", "@")).lstrip(".") or "_"


def open_tensors(path: Path) -> safe_open:
    """Open a safetensors file of a store.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        return open_safetensors(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error})") from error


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file of any size."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write one file of a store atomically: other processes see the old file or the new one.

    Raises:
        OSError: the disk is full; the message says what is safe.
    """
    if_full = (
        "all earlier shards are complete; make room and run the same command again, which resumes from there"
    )
    with whole_file(path, if_full) as partial:
        partial.write_bytes(content)


def _bytes(path: Path) -> bytes:
    try:
        file_size(path)
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error})") from error


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
