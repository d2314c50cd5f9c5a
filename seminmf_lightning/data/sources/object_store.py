"""Rows in an object store, or any other place that fsspec reaches: fetched by byte ranges as they are
needed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.checks import real_number, whole_number
from seminmf_lightning.data.remote.catalog import pieces_of, read_array, sha256_of
from seminmf_lightning.data.remote.chunk_cache import ChunkCache
from seminmf_lightning.data.remote.fetcher import Fetcher
from seminmf_lightning.data.remote.headers import Layout, npy_layout
from seminmf_lightning.data.remote.objects import Remote, in_parallel, refuse_secrets
from seminmf_lightning.data.sources.base import NO_FETCH, Chunking, FetchPlan, Ranges, Shard, Source
from seminmf_lightning.data.splits import numbered_apart
from seminmf_lightning.harvest.store import StoreError

MB, GB = 2**20, 2**30
NEAR = 256 * 2**10  # bytes between two ranges of rows below which one request for both is faster than two


class Near(NamedTuple):
    """Ranges of rows at hand (r,), in order, and where in which chunk each begins."""

    starts: np.ndarray
    stops: np.ndarray
    chunk: np.ndarray
    offset: np.ndarray


@dataclass
class ObjectStoreRows(Source):
    """``.npy`` or ``.safetensors`` objects, or a harvest, by URL: ``s3://``, ``gs://``, ``https://``,
    ``file://``, a path.

    Opening reads the headers.  Rows come in chunks of ``chunk_mb`` by range requests, eight at a time and
    ahead of their use, through a cache on the local disk; each process of a run fetches those of its part.
    Every request is checked: the object must be the one that was opened.

    Raises:
        TypeError, ValueError: a bad argument; an object that is truncated, of another format, or replaced
            while it is read.
        FileNotFoundError, PermissionError: at once.
        OSError: after ``retries`` more tries; the message names the object and the bytes.
    """

    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
    """URL of an object, a folder, a glob, a harvest (its folder or manifest), or a list of them."""
    key: str | None = None
    """Name of the tensor in .safetensors; None takes ``activations``, or the only 2-D tensor there is."""
    group_key: str = "group"
    """Name of an optional tensor (n,) in .safetensors: the image or document of each row."""
    groups: str | None = None
    """URL of a ``.npy`` object (n,): the same for all objects in order."""
    layer: str | Sequence[str] | None = None
    """Of a harvest: name, or a list of names of one width; None takes the only one."""
    storage: dict[str, Any] = field(default_factory=dict)
    """Options of the fsspec file system, such as ``endpoint_url``; None is its own default.  Secrets are
    refused: they come from the environment."""
    cache_dir: str | None = None
    """Folder of the cache; None is the user's cache folder."""
    cache_gb: float = 10.0
    """Its bound, of all processes of a machine together (that use this folder)."""
    chunk_mb: float = 8.0
    shuffle_mb: float = 256.0
    """Chunks that are mixed with one another where the order of rows matters."""
    retries: int = 5
    """Further tries of a request that failed, after pauses of 1/4 s, 1/2 s, 1 s, ..."""
    verify: bool = False
    """Compare the shards of a harvest with their sha256 first; each process hashes its part, and so fetches
    it once more."""

    def __post_init__(self) -> None:
        for name in ("cache_gb", "chunk_mb", "shuffle_mb"):
            real_number(f"data.{name}", getattr(self, name), 0, exclusive=True)
        whole_number("data.retries", self.retries, 0)
        if self.cache_gb * GB < 2 * self.shuffle_mb * MB:
            raise ValueError(
                f"data.cache_gb={self.cache_gb:g} must hold twice data.shuffle_mb={self.shuffle_mb:g} (what is read and what "
                "is fetched meanwhile): raise the one or lower the other"
            )
        self._wanted = NO_FETCH

    @classmethod
    def refuse_secrets(cls, settings: Mapping[str, Any]) -> None:
        refuse_secrets(settings.get("storage") or {})

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)} | {"_wanted": NO_FETCH}

    # --- what there is
    # -------------------------------------------------------------------------------------------

    def open(self) -> list[Shard]:
        paths = [self.path] if isinstance(self.path, str | os.PathLike) else self.path
        if (
            not isinstance(paths, Sequence)
            or not paths
            or not all(isinstance(one, str | os.PathLike) for one in paths)
        ):
            raise TypeError(f"data.path must be a URL, a glob, or a list of them; got {self.path!r}")
        urls = [os.fspath(one) for one in paths]
        self._remote = Remote(urls[0], self.storage, self.retries)
        self._pieces = pieces_of(self._remote, urls, self.key, self.group_key, self.layer)
        first = self._pieces[0]
        for piece in self._pieces:
            if piece.rows[2:] != first.rows[2:]:
                raise ValueError(
                    f"{piece.object.url}: type {piece.rows.dtype}, but {first.object.url} has {first.rows.dtype}; "
                    "all objects must have one type"
                )
        cache_dir = self.cache_dir
        if cache_dir is None:
            from platformdirs import user_cache_dir

            cache_dir = os.path.join(user_cache_dir("seminmf_lightning"), "chunks")
        self._fetcher = Fetcher(
            ChunkCache(cache_dir, int(self.cache_gb * GB)), self._name, self._bytes, self._fetch
        )
        self._nonce = uuid4().hex
        self._hold(NO_FETCH)
        return [
            Shard(one.object.url, torch.empty(one.rows.shape, dtype=_torch_type(one.rows), device="meta"))
            for one in self._pieces
        ]

    def open_groups(self) -> np.ndarray | None:
        len(self)  # opens it
        remote = self._remote
        if self.groups is not None:
            (found,) = remote.find(self.groups)
            return read_array(remote, found, npy_layout(found.url, found.size, partial(remote.read, found)))
        places = [piece.groups for piece in self._pieces if piece.groups is not None]
        if len(places) < len(self._pieces):
            return None
        parts = in_parallel(lambda place: read_array(remote, *place), places)
        return np.concatenate(parts) if self._pieces[0].record else numbered_apart(parts)

    def verify_share(self, rank: int, world: int) -> None:
        if not self.verify:
            return
        len(self)  # opens it
        if not self._pieces[0].record:
            raise ValueError("data.verify=true needs the sha256 of a harvest's manifest: data.path is none")
        share = self._pieces[rank::world]
        for piece, found in zip(
            share, in_parallel(lambda piece: sha256_of(self._remote, piece.object), share), strict=True
        ):
            if found != piece.record["sha256"]:
                raise StoreError(
                    f"{piece.object.url}: damaged: its sha256 is {found}, the manifest says {piece.record['sha256']}; "
                    "copy it to the store again"
                )

    # --- reading
    # -------------------------------------------------------------------------------------------------

    @property
    def chunking(self) -> Chunking:
        """Rows of ``chunk_mb`` and of ``shuffle_mb``."""
        len(self)  # opens it
        size = self._pieces[0].rows.row_bytes
        rows = max(1, int(self.chunk_mb * MB) // size)
        return Chunking(rows, max(rows, int(self.shuffle_mb * MB) // size))

    @property
    def converts(self) -> bool:
        return True  # batches are put together from several chunks

    def prefetch(self, plan: FetchPlan) -> None:
        if plan is not self._wanted:
            len(self)  # opens it
            self._hold(plan)

    def read(self, rows: np.ndarray) -> Tensor:
        at = self._at(rows)
        if (at < 0).any():
            return self._read_unexpected(rows)
        near = self._near
        return self._collect(self._chunk, near.chunk[at], near.offset[at] + rows - near.starts[at])

    def read_range(self, start: int, stop: int) -> Tensor:
        at = int(self._at(np.array([start]))[0]) if start < stop else -1
        if at < 0 or stop > self._near.stops[at]:
            return self.read(np.arange(start, stop))
        first = int(self._near.offset[at]) + start - int(self._near.starts[at])
        return self._chunk(int(self._near.chunk[at]))[first : first + stop - start].to(self._dtype())

    def _read_unexpected(self, rows: np.ndarray) -> Tensor:
        """Rows that nobody spoke of before: chunk by chunk, and the next one meanwhile."""
        size, n = self.chunking.rows, len(self)
        chunk_of = rows // size
        found = torch.empty(len(rows), self.features, dtype=self._dtype())
        for chunk in np.unique(chunk_of).tolist():
            both: list[Ranges] = [
                ((first, min(first + size, n)),) for first in (chunk * size, (chunk + 1) * size) if first < n
            ]
            self.prefetch(FetchPlan(both[:1], both[1:]))
            at = np.flatnonzero(chunk_of == chunk)
            found[torch.from_numpy(at)] = self.read(rows[at])
        return found

    def _hold(self, wanted: FetchPlan) -> None:
        """Let the chunks of ``wanted`` come, and note where the rows of those that are read now are."""
        self._wanted = wanted
        self._fetcher.keep(wanted)
        self._chunks: list[Tensor | None] = [None] * len(wanted.now)
        table = []
        for chunk, ranges in enumerate(wanted.now):
            offset = 0
            for start, stop in ranges:
                table.append((start, stop, chunk, offset))
                offset += stop - start
        self._near = Near(*np.array(sorted(table), dtype=np.int64).reshape(-1, 4).T)

    def _at(self, rows: np.ndarray) -> np.ndarray:
        """Which range at hand each row is in; -1 for none."""
        len(self)  # opens it
        if not len(self._near.starts):
            return np.full(len(rows), -1)
        at = np.searchsorted(self._near.starts, rows, side="right") - 1
        return np.where(rows < self._near.stops[at], at, -1)

    def _chunk(self, chunk: int) -> Tensor:
        """Rows (m, d) of a chunk at hand, as they are stored."""
        found = self._chunks[chunk]
        if found is None:
            layout = self._pieces[0].rows
            content = self._fetcher.content(self._wanted.now[chunk]).view(layout.dtype.newbyteorder("="))
            found = torch.from_numpy(content.reshape(-1, self.features))
            found = self._chunks[chunk] = found.view(torch.bfloat16) if layout.bfloat16 else found
        return found

    # --- in the background: bytes, no tensors
    # --------------------------------------------------------------------

    def _bytes(self, ranges: Ranges) -> int:
        return sum(stop - start for start, stop in ranges) * self._pieces[0].rows.row_bytes

    def _name(self, ranges: Ranges) -> str:
        """The same in every run as long as the objects are the same."""
        touched = dict.fromkeys(index for index, _ in self._requests(ranges))
        objects = [[*self._pieces[index].object, self._pieces[index].rows.offset] for index in touched]
        anew = [] if all(self._pieces[index].object.version for index in touched) else [self._nonce]
        what = [objects, str(self._pieces[0].rows.dtype), ranges, *anew]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def _fetch(self, ranges: Ranges) -> bytearray:
        content, layout = bytearray(), self._pieces[0].rows
        for index, spans in self._requests(ranges):
            piece, first, last = self._pieces[index], spans[0][0], spans[-1][1]
            begin, size = piece.rows.offset, layout.row_bytes
            got = memoryview(self._remote.read(piece.object, begin + first * size, begin + last * size))
            for start, stop in spans:
                content += got[(start - first) * size : (stop - first) * size]
        if not layout.dtype.isnative:
            np.frombuffer(content, layout.dtype).byteswap(inplace=True)
        return content

    def _requests(self, ranges: Ranges) -> list[tuple[int, list[tuple[int, int]]]]:
        """Which rows of which object, those of one request together."""
        found: list[tuple[int, list[tuple[int, int]]]] = []
        gap = NEAR // self._pieces[0].rows.row_bytes
        for start, stop in ranges:
            index = int(np.searchsorted(self._starts, start, side="right")) - 1
            while start < stop:
                begin, end = int(self._starts[index]), min(stop, int(self._starts[index + 1]))
                span = (start - begin, end - begin)
                if found and found[-1][0] == index and span[0] - found[-1][1][-1][1] <= gap:
                    found[-1][1].append(span)
                else:
                    found.append((index, [span]))
                start, index = end, index + 1
        return found


def _torch_type(layout: Layout) -> torch.dtype:
    return (
        torch.bfloat16
        if layout.bfloat16
        else torch.from_numpy(np.empty(0, layout.dtype.newbyteorder("="))).dtype
    )
