"""Rows on disk: shards that appear whole or not at all, and a manifest that says what they are.

    <store>/manifest.json                          model, layers, preprocessing, rows, means, sha256 of each shard
    <store>/examples/000000.jsonl                  name and text (or size) of each example of shard 0
    <store>/<layer>/000000.safetensors             `activations` (m, d)
    <store>/<layer>/index/000000.safetensors       a column (m,) for each part of a row's origin

A shard holds a fixed range of examples, so that any process may write it, and a harvest that was killed goes on with the
shards that are missing.  The index is written last: where it is, the shard is whole.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

FORMAT = 1
MANIFEST = "manifest.json"
SUMMED_ROWS = 2048  # in float32, before they are added in float64


class StoreError(ValueError):
    """A store that cannot be used: the message names the file, what was found and what to do."""


class ShardFiles(NamedTuple):
    """The two files of one shard of one layer."""

    activations: Path
    origin: Path


class Store:
    """A folder of harvested rows."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(os.path.expanduser(folder))

    # --- names ---------------------------------------------------------------------------------------------------

    def files(self, layer: str, shard: int) -> ShardFiles:
        place = self.folder / folder_name(layer)
        return ShardFiles(place / f"{shard:06d}.safetensors", place / "index" / f"{shard:06d}.safetensors")

    def examples_file(self, shard: int) -> Path:
        return self.folder / "examples" / f"{shard:06d}.jsonl"

    # --- manifest ------------------------------------------------------------------------------------------------

    def manifest(self) -> dict[str, Any] | None:
        """As it is on disk; None if there is none.

        Raises:
            StoreError: it is not a manifest that this version reads.
        """
        path = self.folder / MANIFEST
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            version = found["format"]
            found["settings"], found["plan"]["examples_per_shard"], found["complete"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: not a manifest of harvested activations ({error})") from error
        if version != FORMAT:
            raise StoreError(f"{path}: format {version!r}; this version reads format {FORMAT}")
        return found

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        write_whole(self.folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())

    # --- writing -------------------------------------------------------------------------------------------------

    def write_shard(
        self, shard: int, layer: str, values: Tensor, index: Mapping[str, np.ndarray], record: dict[str, Any]
    ) -> dict[str, Any]:
        """Write one shard of one layer and return its record: that given, with rows, bytes and sha256."""
        files = self.files(layer, shard)
        content = save({"activations": values.contiguous()})
        record = record | {"rows": len(values), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        write_whole(files.activations, content)
        columns = {name: torch.from_numpy(np.ascontiguousarray(column)) for name, column in index.items()}
        total = torch.zeros(values.shape[1], dtype=torch.float64)
        for block in values.split(SUMMED_ROWS):
            total += block.float().sum(dim=0)
        write_whole(files.origin, save(columns | {"sum": total}, metadata={"record": json.dumps(record, sort_keys=True)}))
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

    # --- reading -------------------------------------------------------------------------------------------------

    def record(self, layer: str, shard: int) -> dict[str, Any] | None:
        """What is known of a shard; None unless it is whole: what is missing or damaged is written anew."""
        files = self.files(layer, shard)
        if not files.origin.exists() or not files.activations.exists():
            return None
        try:
            with open_tensors(files.origin) as handle:
                record = json.loads((handle.metadata() or {}).get("record", "{}"))
        except (StoreError, ValueError):
            return None
        return record if record.get("bytes") == files.activations.stat().st_size else None

    def columns(self, layer: str, shard: int) -> dict[str, Tensor]:
        """A shard's index: columns (m,), and ``sum`` (d,), the sum of its rows."""
        with open_tensors(self.files(layer, shard).origin) as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118  (not a mapping)

    def examples(self, shard: int) -> list[dict[str, Any]]:
        """The records of a shard's examples, those that were skipped with the reason."""
        path = self.examples_file(shard)
        try:
            with open(path, encoding="utf-8", errors="surrogatepass", newline="\n") as lines:
                return [json.loads(line) for line in lines]
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: cannot be read ({error})") from error


def folder_name(layer: str) -> str:
    """A layer's folder: its name, without what file systems give a meaning to."""
    return re.sub(r"[^\w.@-]", "_", layer).lstrip(".") or "_"


def open_tensors(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size if path.exists() else 0
        raise StoreError(f"{path}: not a whole .safetensors file ({size:,} bytes; {error})") from error


def sha256_of(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(stream)


def _digest(stream: Any) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(2**20):
        digest.update(chunk)
    return digest.hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write beside the target, flush to the disk, replace: another process sees the old file or the new one.

    Raises:
        OSError: with a message that says what is safe, when the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                error.errno, f"the disk is full: {len(content):,} bytes for {path} do not fit. All shards before it are whole; "
                "make room and run the same command again, which goes on from there"
            ) from error  # fmt: skip
        raise


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
