"""Rows in an object store, or any other file system of fsspec, fetched by byte ranges when needed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from platformdirs import user_cache_dir
from torch import Tensor

from seminmf_lightning.core.checks import real_number, whole_number
from seminmf_lightning.data.remote.catalog import find_matrices, read_array, read_npy, sha256_of
from seminmf_lightning.data.remote.chunk_cache import ChunkCache, Prefetcher
from seminmf_lightning.data.remote.objects import Remote, in_parallel
from seminmf_lightning.data.shard import Shard, gather
from seminmf_lightning.data.sources.base import NO_FETCH, Chunking, FetchPlan, Ranges, Source
from seminmf_lightning.data.splits import numbered_apart
from seminmf_lightning.harvest.store import StoreError

MB, GB = 2**20, 2**30
NEAR = 256 * 2**10
"""Two ranges of rows less than this many bytes apart are fetched faster by one request than by two."""


@dataclass
class ObjectStoreRows(Source):
    """``.npy`` or ``.safetensors`` objects, or a harvest, by URL: ``s3://``, ``gs://``, ``https://``, a path.

    Opening reads the headers. Rows are prefetched in chunks of ``chunk_mb`` by range requests, eight at a
    time, through a cache on the local disk; each process of a run fetches only its own part.
    After every request the object must still be the one that was opened.

    Raises:
        TypeError, ValueError: a bad argument; an object that is truncated, of another format, or replaced
            while it is read.
        FileNotFoundError, PermissionError: at once.
        OSError: after ``retries`` further attempts; the message names the object and the bytes.
    """

    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
    """URL of an object, a folder, a glob, a harvest (its folder or manifest), or a list of them."""
    key: str | None = None
    """Name of the tensor in .safetensors; None: ``activations``, or the only 2-D tensor."""
    group_key: str = "group"
    """Name of an optional tensor (n,) in .safetensors: the image or document of each row."""
    groups: str | None = None
    """URL of a ``.npy`` object (n,): the image or document of each row of all objects in order."""
    layer: str | Sequence[str] | None = None
    """Name of a layer of a harvest, or a list of names of one width; None: the only layer."""
    storage: dict[str, Any] = field(default_factory=dict)
    """Options of the fsspec file system, such as ``endpoint_url``; None keeps its default. Secrets are
    refused: they come from the environment."""
    cache_dir: str | None = None
    """Folder of the cache; None: the user's cache folder."""
    cache_gb: float = 10.0
    """Limit of the cache, for all processes of a machine that use this folder together."""
    chunk_mb: float = 8.0
    shuffle_mb: float = 256.0
    """Rows that are shuffled together where their order matters."""
    retries: int = 5
    """Further attempts of a request that failed, after pauses of 1/4 s, 1/2 s, 1 s, ..."""
    verify: bool = False
    """Compare the shards of a harvest with their sha256 first, which fetches each shard once more."""

    def __post_init__(self) -> None:
        for name in ("cache_gb", "chunk_mb", "shuffle_mb"):
            real_number(f"data.{name}", getattr(self, name), 0, exclusive=True)
        whole_number("data.retries", self.retries, 0)
        if self.cache_gb * GB < 2 * self.shuffle_mb * MB:
            raise ValueError(
                f"data.cache_gb={self.cache_gb:g} must hold twice data.shuffle_mb={self.shuffle_mb:g} (rows "
                "being read and rows being fetched): raise data.cache_gb or lower data.shuffle_mb"
            )
        self._plan = NO_FETCH

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)} | {"_plan": NO_FETCH}

    def open(self) -> list[Shard]:
        paths = [self.path] if isinstance(self.path, str | os.PathLike) else self.path
        are_paths = isinstance(paths, Sequence) and all(isinstance(one, str | os.PathLike) for one in paths)
        if not are_paths or not paths:
            raise TypeError(f"data.path must be a URL, a glob, or a list of them; got {self.path!r}")
        urls = [os.fspath(one) for one in paths]
        self._remote = Remote(urls[0], self.storage, self.retries)
        self._matrices = find_matrices(self._remote, urls, self.key, self.group_key, self.layer)
        first = self._matrices[0]
        self._type = first.rows
        for matrix in self._matrices:
            if matrix.rows[2:] != first.rows[2:]:
                raise ValueError(
                    f"{matrix.object.url}: type {matrix.rows.dtype}, but {first.object.url} has "
                    f"{first.rows.dtype}; all objects must have one type"
                )
        chunks = os.path.join(user_cache_dir("seminmf_lightning"), "chunks")
        self._cache = ChunkCache(
            chunks if self.cache_dir is None else self.cache_dir, int(self.cache_gb * GB)
        )
        self._prefetcher = Prefetcher(self._load)
        self._nonce = uuid4().hex
        self._follow(NO_FETCH)
        stored = self._as_stored(np.empty(0, first.rows.dtype.newbyteorder("="))).dtype
        return [
            Shard(one.object.url, torch.empty(one.rows.shape, dtype=stored, device="meta"))
            for one in self._matrices
        ]

    def open_groups(self) -> np.ndarray | None:
        len(self)  # opens the source
        if self.groups is not None:
            return read_npy(self._remote, self.groups)
        tensors = [matrix.groups for matrix in self._matrices if matrix.groups is not None]
        if len(tensors) < len(self._matrices):
            return None
        parts = in_parallel(lambda tensor: read_array(self._remote, *tensor), tensors)
        return np.concatenate(parts) if self._matrices[0].record else numbered_apart(parts)

    def verify_share(self, rank: int, world: int) -> None:
        if not self.verify:
            return
        len(self)  # opens the source
        if not self._matrices[0].record:
            raise ValueError(
                "data.verify=true needs the sha256 in the manifest of a harvest, and data.path is not one"
            )
        share = self._matrices[rank::world]
        digests = in_parallel(lambda matrix: sha256_of(self._remote, matrix.object), share)
        for matrix, digest in zip(share, digests, strict=True):
            if digest != matrix.record["sha256"]:
                raise StoreError(
                    f"{matrix.object.url}: damaged: its sha256 is {digest}, the manifest says "
                    f"{matrix.record['sha256']}; copy it to the store again"
                )

    @property
    def chunking(self) -> Chunking:
        """``chunk_mb`` and ``shuffle_mb`` in rows."""
        len(self)  # opens the source
        rows = max(1, int(self.chunk_mb * MB) // self._type.row_bytes)
        return Chunking(rows, max(rows, int(self.shuffle_mb * MB) // self._type.row_bytes))

    @property
    def converts(self) -> bool:
        return True  # batches are put together from several chunks

    def prefetch(self, plan: FetchPlan) -> None:
        if plan is not self._plan:
            len(self)  # opens the source
            self._follow(plan)

    def read(self, rows: np.ndarray) -> Tensor:
        at = self._range_of(rows)
        if (at < 0).any():
            return self._read_unplanned(rows)
        local = self._offsets[at] + rows - self._begins[at]
        return self._collect(lambda chunk, at: gather(self._chunk(chunk), at), self._chunk_of[at], local)

    def read_range(self, start: int, stop: int) -> Tensor:
        at = int(self._range_of(np.array([start]))[0]) if start < stop else -1
        if at < 0 or stop > self._ends[at]:
            return self.read(np.arange(start, stop))
        first = int(self._offsets[at]) + start - int(self._begins[at])
        return self._chunk(int(self._chunk_of[at]))[first : first + stop - start].to(self._dtype())

    def _read_unplanned(self, rows: np.ndarray) -> Tensor:
        """Read rows that no plan holds, chunk by chunk, while the next chunk is fetched."""
        size, n = self.chunking.rows, len(self)
        chunk_of = rows // size
        result = torch.empty(len(rows), self.features, dtype=self._dtype())
        for chunk in np.unique(chunk_of).tolist():
            starts = [start for start in (chunk * size, (chunk + 1) * size) if start < n]
            both: list[Ranges] = [((start, min(start + size, n)),) for start in starts]
            self.prefetch(FetchPlan(both[:1], both[1:]))
            at = np.flatnonzero(chunk_of == chunk)
            result[torch.from_numpy(at)] = self.read(rows[at])
        return result

    def _follow(self, plan: FetchPlan) -> None:
        """Prefetch a plan, and note which range of which chunk holds each row to read next."""
        self._plan = plan
        self._prefetcher.follow(plan)
        self._chunks: list[Tensor | None] = [None] * len(plan.now)
        table = []
        for chunk, ranges in enumerate(plan.now):
            offset = 0
            for start, stop in ranges:
                table.append((start, stop, chunk, offset))
                offset += stop - start
        # Sorted by the first row of each range, for bisection.
        columns = np.array(sorted(table), dtype=np.int64).reshape(-1, 4).T
        self._begins, self._ends, self._chunk_of, self._offsets = columns

    def _range_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the planned range (m,) that holds each row (m,), or -1."""
        len(self)  # opens the source
        if not len(self._begins):
            return np.full(len(rows), -1)
        at = np.searchsorted(self._begins, rows, side="right") - 1
        return np.where(rows < self._ends[at], at, -1)

    def _chunk(self, chunk: int) -> Tensor:
        """Return rows (m, d) of a planned chunk in their stored type."""
        rows = self._chunks[chunk]
        if rows is None:
            content = self._prefetcher.content(self._plan.now[chunk])
            rows = self._as_stored(content.view(self._type.dtype.newbyteorder("=")))
            rows = self._chunks[chunk] = rows.view(-1, self.features)
        return rows

    def _as_stored(self, numbers: np.ndarray) -> Tensor:
        rows = torch.from_numpy(numbers)
        return rows.view(torch.bfloat16) if self._type.bfloat16 else rows

    def _load(self, ranges: Ranges) -> np.ndarray:
        """Return the bytes of a chunk, from the cache or the store. Runs in background threads: no tensors
        here."""
        requests = self._requests(ranges)
        # The name stays the same from run to run while the objects do; objects without a version get a new
        # name.
        objects = [self._matrices[index] for index in dict.fromkeys(index for index, _ in requests)]
        states = [[*one.object, one.rows.offset] for one in objects]
        content: list[Any] = [states, str(self._type.dtype), ranges]
        if not all(one.object.version for one in objects):
            content.append(self._nonce)
        name = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        size = sum(stop - start for start, stop in ranges) * self._type.row_bytes
        return self._cache.get(name, size, lambda: self._fetch(requests))

    def _fetch(self, requests: list[tuple[int, list[tuple[int, int]]]]) -> bytearray:
        content, size = bytearray(), self._type.row_bytes
        for index, spans in requests:
            matrix, first, last = self._matrices[index], spans[0][0], spans[-1][1]
            begin = matrix.rows.offset
            part = memoryview(self._remote.read(matrix.object, begin + first * size, begin + last * size))
            for start, stop in spans:
                content += part[(start - first) * size : (stop - first) * size]
        if not self._type.dtype.isnative:
            np.frombuffer(content, self._type.dtype).byteswap(inplace=True)
        return content

    def _requests(self, ranges: Ranges) -> list[tuple[int, list[tuple[int, int]]]]:
        """Return for each request the index of a matrix and spans of its rows; nearby spans share a
        request."""
        requests: list[tuple[int, list[tuple[int, int]]]] = []
        gap = NEAR // self._type.row_bytes
        for start, stop in ranges:
            first, last = self.shard_of(np.array([start, stop - 1])).tolist()
            for index in range(first, last + 1):
                begin, end = self._starts[index : index + 2].tolist()
                span = (max(start, begin) - begin, min(stop, end) - begin)
                if requests and requests[-1][0] == index and span[0] - requests[-1][1][-1][1] <= gap:
                    requests[-1][1].append(span)
                else:
                    requests.append((index, [span]))
        return requests
