"""What the objects of a store hold, from their headers: matrices of rows, or the shards of a harvest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from seminmf_lightning.data.remote.headers import Layout, npy_layout, safetensors_layouts
from seminmf_lightning.data.remote.objects import Remote, RemoteObject, in_parallel
from seminmf_lightning.data.sources.safetensors import tensor_of_rows
from seminmf_lightning.data.sources.shards import chosen_layers
from seminmf_lightning.harvest.store import MANIFEST, StoreError, parse_manifest

SUFFIXES = (".npy", ".safetensors")
HASHED_BYTES = 2**24  # a request


class Piece(NamedTuple):
    """A matrix of rows in an object; where the group of each of them is, if it is there; in a harvest, its
    record."""

    object: RemoteObject
    rows: Layout
    groups: tuple[RemoteObject, Layout] | None
    record: dict[str, Any]


def pieces_of(
    remote: Remote, urls: Sequence[str], key: str | None, group_key: str, layer: str | Sequence[str] | None
) -> list[Piece]:
    """The matrices at some URLs, in order.

    Raises:
        ValueError, FileNotFoundError, OSError: naming the object.
    """
    objects = [found for url in urls for found in remote.find(url)]
    manifests = [found for found in objects if PurePosixPath(found.path).name == MANIFEST]
    if manifests:
        return [piece for found in manifests for piece in _harvest(remote, found, layer)]
    matrices = [found for found in objects if found.path.endswith(SUFFIXES)]
    if not matrices:
        raise ValueError(
            f"{objects[0].url}: rows come from {' or '.join(SUFFIXES)} objects, or from a harvest"
        )
    return in_parallel(lambda found: _matrix(remote, found, key, group_key), matrices)


def read_array(remote: Remote, found: RemoteObject, layout: Layout) -> np.ndarray:
    """All of a small array."""
    content = remote.read(found, layout.offset, layout.offset + layout.bytes)
    return np.frombuffer(content, layout.dtype).reshape(layout.shape)


def sha256_of(remote: Remote, found: RemoteObject) -> str:
    """Of an object, a part at a time."""
    digest = hashlib.sha256()
    for start in range(0, found.size, HASHED_BYTES):
        digest.update(remote.read(found, start, min(start + HASHED_BYTES, found.size)))
    return digest.hexdigest()


def _matrix(remote: Remote, found: RemoteObject, key: str | None, group_key: str) -> Piece:
    if found.path.endswith(".npy"):
        return Piece(found, npy_layout(found.url, found.size, partial(remote.read, found)), None, {})
    layouts = _tensors(remote, found)
    name = tensor_of_rows(found.url, {name: len(layout.shape) for name, layout in layouts.items()}, key)
    return Piece(found, layouts[name], (found, layouts[group_key]) if group_key in layouts else None, {})


def _harvest(remote: Remote, found: RemoteObject, layer: str | Sequence[str] | None) -> list[Piece]:
    """The shards of the layers asked for, each held against its record in the manifest."""
    manifest = parse_manifest(remote.read(found, 0, found.size), found.url)
    if not manifest["complete"]:
        raise StoreError(f"{found.url}: this harvest is not finished; finish it, then copy it to the store")
    folder = found.url.removesuffix(MANIFEST)

    def locate(name: str) -> RemoteObject:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise StoreError(f"{found.url}: {name!r} leaves the store's folder; it was not opened")
        (there,) = remote.find(f"{folder}{path}")
        return there

    def piece(record: dict[str, Any]) -> Piece:
        shard, index = locate(record["file"]), locate(record["index"])
        if shard.size != record["bytes"]:
            raise StoreError(
                f"{shard.url}: {shard.size:,} bytes, but the manifest says {record['bytes']:,}; copy it to the store again"
            )
        rows = _matrix(remote, shard, "activations", "").rows
        return Piece(shard, rows, (index, _tensors(remote, index)["example"]), record)

    records = [
        record
        for name in chosen_layers(manifest, layer, folder)
        for record in manifest["layers"][name]["shards"]
        if record["rows"]
    ]
    if not records:
        raise StoreError(f"{found.url}: holds no rows")
    return in_parallel(piece, records)


def _tensors(remote: Remote, found: RemoteObject) -> dict[str, Layout]:
    return safetensors_layouts(found.url, found.size, partial(remote.read, found))
