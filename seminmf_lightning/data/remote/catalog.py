"""List the matrices at URLs: single objects, or the shards of a harvest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from seminmf_lightning.data.paths import refuse_missing
from seminmf_lightning.data.remote.headers import Layout, npy_layout, safetensors_layouts
from seminmf_lightning.data.remote.objects import Remote, RemoteObject, in_parallel
from seminmf_lightning.data.sources.safetensors import tensor_of_rows
from seminmf_lightning.data.sources.shards import chosen_layers
from seminmf_lightning.harvest.manifest import MANIFEST, StoreError, parse_manifest

SUFFIXES = (".npy", ".safetensors")
HASHED_BYTES = 2**24  # per request


class Matrix(NamedTuple):
    """Rows in an object, the location of their groups or None, and the shard's record in a manifest or {}."""

    object: RemoteObject
    rows: Layout
    groups: tuple[RemoteObject, Layout] | None
    record: dict[str, Any]


def find_matrices(
    remote: Remote, urls: Sequence[str], key: str | None, group_key: str, layer: str | Sequence[str] | None
) -> list[Matrix]:
    """Return the matrices at some URLs, in order.

    Raises:
        ValueError, FileNotFoundError, OSError: the message names the object.
    """
    objects: list[RemoteObject] = []
    for url in urls:
        matches = remote.find(url)
        named = len(matches) == 1 and matches[0].path.endswith(PurePosixPath(url).name)
        if not named:  # by a glob or a folder
            refuse_missing(
                (one.path for one in matches if one.path.lower().endswith(SUFFIXES)), remote.fs.exists
            )
        objects += matches
    manifests = [one for one in objects if PurePosixPath(one.path).name == MANIFEST]
    if manifests:
        return [matrix for one in manifests for matrix in _harvest(remote, one, layer)]
    matrices = [one for one in objects if one.path.lower().endswith(SUFFIXES)]
    if not matrices:
        raise ValueError(
            f"{objects[0].url}: rows come from {' or '.join(SUFFIXES)} objects, or from a harvest"
        )
    return in_parallel(lambda one: _matrix(remote, one, key, group_key), matrices)


def read_npy(remote: Remote, url: str) -> np.ndarray:
    """Read all of a small ``.npy`` object of numbers."""
    (source,) = remote.find(url)
    return read_array(remote, source, npy_layout(source.url, source.size, partial(remote.read, source)))


def read_array(remote: Remote, source: RemoteObject, layout: Layout) -> np.ndarray:
    """Read all of a small array."""
    content = remote.read(source, layout.offset, layout.offset + layout.bytes)
    return np.frombuffer(content, layout.dtype).reshape(layout.shape)


def sha256_of(remote: Remote, source: RemoteObject) -> str:
    """Return the SHA-256 of an object, which is read in parts."""
    digest = hashlib.sha256()
    for start in range(0, source.size, HASHED_BYTES):
        digest.update(remote.read(source, start, min(start + HASHED_BYTES, source.size)))
    return digest.hexdigest()


def _matrix(remote: Remote, source: RemoteObject, key: str | None, group_key: str) -> Matrix:
    if source.path.lower().endswith(".npy"):
        return Matrix(source, npy_layout(source.url, source.size, partial(remote.read, source)), None, {})
    layouts = _tensors(remote, source)
    name = tensor_of_rows(source.url, {name: len(layout.shape) for name, layout in layouts.items()}, key)
    groups = (source, layouts[group_key]) if group_key in layouts else None
    return Matrix(source, layouts[name], groups, {})


def _harvest(remote: Remote, source: RemoteObject, layer: str | Sequence[str] | None) -> list[Matrix]:
    """Return the shards of the requested layers, each compared with its record in the manifest."""
    manifest = parse_manifest(remote.read(source, 0, source.size), source.url)
    if not manifest["complete"]:
        raise StoreError(f"{source.url}: this harvest is not finished; finish it, then copy it to the store")
    folder = source.url.removesuffix(MANIFEST)

    def locate(name: str) -> RemoteObject:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise StoreError(f"{source.url}: {name!r} leaves the store's folder; it was not opened")
        (located,) = remote.find(f"{folder}{path}")
        return located

    def matrix(record: dict[str, Any]) -> Matrix:
        shard, index = locate(record["file"]), locate(record["index"])
        if shard.size != record["bytes"]:
            raise StoreError(
                f"{shard.url}: {shard.size:,} bytes, but the manifest says {record['bytes']:,}; "
                "copy it to the store again"
            )
        rows = _matrix(remote, shard, "activations", "").rows
        return Matrix(shard, rows, (index, _tensors(remote, index)["example"]), record)

    layers = [manifest["layers"][name] for name in chosen_layers(manifest, layer, folder)]
    records = [record for one in layers for record in one["shards"] if record["rows"]]
    if not records:
        raise StoreError(f"{source.url}: holds no rows")
    return in_parallel(matrix, records)


def _tensors(remote: Remote, source: RemoteObject) -> dict[str, Layout]:
    return safetensors_layouts(source.url, source.size, partial(remote.read, source))
