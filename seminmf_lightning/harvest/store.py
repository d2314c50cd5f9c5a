"""Rows on disk: shards that appear whole or not at all, and a manifest that says what they are.

    <store>/manifest.json                          model, layers, preprocessing, rows, means, sha256 of each
    shard <store>/examples/000000.jsonl                  name and text (or size) of each example of shard 0
    <store>/<layer>/000000.safetensors             `activations` (m, d)
    <store>/<layer>/index/000000.safetensors       a column (m,) for each part of a row's origin

A shard holds a fixed range of examples, so that any process may write it, and a harvest that was killed goes
on with the shards that are missing.  The index is written last: where it is, the shard is whole.
"""

from __future__ import annotations

import hashlib
import json
import math
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

from seminmf_lightning.io.atomic import whole_file
from seminmf_lightning.io.schema import conform
from seminmf_lightning.io.untrusted import (
    WHOLE_NUMBERS,
    Refused,
    file_size,
    open_safetensors,
    parse_json,
    read_tensor,
)

FORMAT = 1
MANIFEST = "manifest.json"
SUMMED_ROWS = 2048  # in float32, before they are added in float64
LARGEST = (
    2**40
)  # features of a layer, examples of a shard: beyond it products of two leave the range of a number

RECORD = {"harvest": str, "examples": [int], "filtered": int, "norm_sum": float, "skipped": int,
          "rows": int, "bytes": int, "sha256": str}  # fmt: skip
LAYER = {"features": int, "rows": int, "shards": [RECORD | {"shard": int, "file": str, "index": str}]}
UNFINISHED = {
    "format": int, "complete": bool, "settings": {"inputs": dict},
    "plan": {"examples": int, "examples_per_shard": int, "harvest": str, "widths": {str: int}},
}  # fmt: skip
EXAMPLE = {"example": int, "name": str, "text?": str, "size?": [int], "region?": [float], "skipped?": str}


StoreError = Refused
"""A store that cannot be used: the message names the file, what was found and what to do."""


class ShardFiles(NamedTuple):
    """The two files of one shard of one layer."""

    activations: Path
    origin: Path


class Store:
    """A folder of harvested rows."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(os.path.expanduser(folder))

    # --- names
    # ---------------------------------------------------------------------------------------------------

    def files(self, layer: str, shard: int) -> ShardFiles:
        place = self.folder / folder_name(layer)
        return ShardFiles(place / f"{shard:06d}.safetensors", place / "index" / f"{shard:06d}.safetensors")

    def examples_file(self, shard: int) -> Path:
        return self.folder / "examples" / f"{shard:06d}.jsonl"

    # --- manifest
    # ------------------------------------------------------------------------------------------------

    def manifest(self) -> dict[str, Any] | None:
        """As it is on disk; None if there is none.

        Raises:
            StoreError: it is not a manifest that this version reads.
        """
        path = self.folder / MANIFEST
        if not path.exists():
            return None
        return parse_manifest(self._bytes(path), path)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        write_whole(self.folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())

    # --- writing
    # -------------------------------------------------------------------------------------------------

    def write_shard(
        self, shard: int, layer: str, values: Tensor, index: Mapping[str, np.ndarray], record: dict[str, Any]
    ) -> dict[str, Any]:
        """Write one shard of one layer and return its record: that given, with rows, bytes and sha256."""
        files = self.files(layer, shard)
        content = save({"activations": values.contiguous()})
        record = record | {
            "rows": len(values),
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        write_whole(files.activations, content)
        columns = {name: torch.from_numpy(np.ascontiguousarray(column)) for name, column in index.items()}
        total = torch.zeros(values.shape[1], dtype=torch.float64)
        for block in values.split(SUMMED_ROWS):
            total += block.float().sum(dim=0)
        write_whole(
            files.origin,
            save(columns | {"sum": total}, metadata={"record": json.dumps(record, sort_keys=True)}),
        )
        return record

    def write_examples(self, shard: int, records: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        write_whole(self.examples_file(shard), lines.encode("utf-8", errors="surrogatepass"))

    def clean(self) -> None:
        """Remove what an interrupted write of a process that is gone left behind."""
        for partial in self.folder.rglob("*.partial"):
            writer = partial.name.split(".")[-2]
            if not (writer.isdigit() and _alive(int(writer))):
                partial.unlink(missing_ok=True)

    # --- reading
    # -------------------------------------------------------------------------------------------------

    def record(self, layer: str, shard: int) -> dict[str, Any] | None:
        """What is known of a shard; None unless it is whole: what is missing or damaged is written anew."""
        files = self.files(layer, shard)
        if not os.path.exists(files.origin) or not os.path.exists(files.activations):
            return None
        try:
            with open_tensors(self.inside(files.origin)) as handle:
                record = parse_json(
                    files.origin, (handle.metadata() or {}).get("record", ""), "the index of a shard"
                )
            conform(files.origin, record, RECORD)
        except (ValueError, OSError):
            return None
        return record if record["bytes"] == files.activations.stat().st_size else None

    def shards(self, layer: str) -> list[int]:
        """Numbers of the shards whose index is there."""
        folder = self.files(layer, 0).origin.parent
        names = os.listdir(folder) if os.path.isdir(folder) else []
        return sorted(int(name[:-12]) for name in names if re.fullmatch(r"[0-9]{6,15}\.safetensors", name))

    def columns(self, layer: str, shard: int) -> dict[str, Tensor]:
        """A shard's index: columns (m,) of whole numbers, and ``sum`` (d,) float64, the sum of its rows."""
        path = self.inside(self.files(layer, shard).origin)
        with open_tensors(path) as handle:
            types = {name: ("F64",) if name == "sum" else WHOLE_NUMBERS for name in handle.keys()}  # noqa: SIM118  (no mapping)
            found = {name: read_tensor(path, handle, name, accepted) for name, accepted in types.items()}
        if (
            "sum" not in found
            or any(column.ndim != 1 for column in found.values())
            or len({len(found[name]) for name in found if name != "sum"}) > 1
        ):
            shapes = {name: tuple(column.shape) for name, column in found.items()}
            raise StoreError(f"{path}: expected `sum` and columns of one length, found {shapes}")
        return found

    def examples(self, shard: int) -> list[dict[str, Any]]:
        """The records of a shard's examples, those that were skipped with the reason."""
        path = self.inside(self.examples_file(shard))
        lines = self._bytes(path).split(b"\n")
        if lines.pop():
            raise StoreError(f"{path}: its last line has no end; it is truncated")
        records = []
        for number, line in enumerate(lines, 1):
            where = f"{path}, line {number}"
            # Names of files may be no Unicode at all: written as halves of surrogate pairs, read back as
            # such.
            record = parse_json(where, _text(where, line), "the record of an example")
            conform(where, record, EXAMPLE)
            if "region" in record and not (
                len(record["region"]) == 4
                and min(record["region"][2:]) > 0
                and len(record.get("size", ())) == 2
            ):
                raise StoreError(
                    f"{where}: region must be top, left, height and width of a picture of known size"
                )
            records.append(record)
        return records

    def inside(self, path: Path) -> Path:
        """``path`` if it lies in the store's folder, links followed.

        Raises:
            StoreError: it does not.
        """
        try:
            inside = path.resolve().is_relative_to(self.folder.resolve())
        except (
            OSError,
            ValueError,
            RuntimeError,
        ) as error:  # a name that no file can have, links in a circle
            raise StoreError(f"{self.folder / MANIFEST}: names what can be no file ({error})") from error
        if not inside:
            raise StoreError(f"{path}: leaves the store's folder {self.folder}; it was not opened")
        return path

    def _bytes(self, path: Path) -> bytes:
        try:
            file_size(path)
            return path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error})") from error


def parse_manifest(content: bytes, path: Path | str) -> dict[str, Any]:
    """
    Raises:
        StoreError: it is not a manifest that this version reads.
    """
    found = parse_json(path, content, "a manifest of harvested activations")
    conform(path, found, {"format": int})
    if found["format"] != FORMAT:
        raise StoreError(f"{path}: format {found['format']}; this version reads format {FORMAT}")
    conform(path, found, UNFINISHED)
    if not 0 < found["plan"]["examples_per_shard"] <= LARGEST:
        raise StoreError(
            f"{path}: plan.examples_per_shard is {found['plan']['examples_per_shard']}; expected at least 1"
        )
    if found["complete"]:
        conform(path, found, {"layers": {str: LAYER}})
        for name, layer in found["layers"].items():
            _check_layer(
                path, name, layer, math.ceil(found["plan"]["examples"] / found["plan"]["examples_per_shard"])
            )
    return found


def _check_layer(path: Path | str, name: str, layer: dict[str, Any], shards: int) -> None:
    """Every shard once, with all the rows that there are: none is lost in silence."""
    records = layer["shards"]
    if not 0 < layer["features"] <= LARGEST:
        raise StoreError(f"{path}: layers[{name!r}].features is {layer['features']}; expected at least 1")
    if len(records) != shards or any(record["shard"] != number for number, record in enumerate(records)):
        raise StoreError(
            f"{path}: layer {name!r} lists {len(records)} shards; its plan has {shards}, in order"
        )
    if any(
        len(record["examples"]) != 2 or record["examples"][0] > record["examples"][1] for record in records
    ):
        raise StoreError(f"{path}: layer {name!r} has a shard whose examples are no range")
    if (rows := sum(record["rows"] for record in records)) != layer["rows"]:
        raise StoreError(f"{path}: layer {name!r} has {layer['rows']} rows, but its shards have {rows}")


def folder_name(layer: str) -> str:
    """A layer's folder: its name, without what file systems give a meaning to."""
    return re.sub(r"[^\w.@-]", "_", layer).lstrip(".") or "_"


def open_tensors(path: Path) -> safe_open:
    try:
        return open_safetensors(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error})") from error


def _text(where: str, line: bytes) -> str:
    try:
        return line.decode("utf-8", errors="surrogatepass")
    except UnicodeDecodeError as error:
        raise StoreError(f"{where}: not text in UTF-8 ({error})") from error


def sha256_of(path: Path) -> str:
    with open(path, "rb") as stream:
        return (
            hashlib.file_digest(stream, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else _digest(stream)
        )


def _digest(stream: Any) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(2**20):
        digest.update(chunk)
    return digest.hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write one file of a store: another process sees the old file or the new one.

    Raises:
        OSError: the disk is full; the message says what is safe.
    """
    if_full = (
        "all shards before it are whole; make room and run the same command again, which goes on from there"
    )
    with whole_file(path, if_full) as partial:
        partial.write_bytes(content)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
