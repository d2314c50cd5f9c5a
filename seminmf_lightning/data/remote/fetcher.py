"""Chunks that are fetched in the background, ahead of their use.

The threads handle bytes alone: one that touched torch would start OpenMP's threads a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from seminmf_lightning.data.remote.chunk_cache import ChunkCache
from seminmf_lightning.data.remote.objects import THREADS
from seminmf_lightning.data.sources.base import FetchPlan, Ranges


class Fetcher:
    """Keeps the chunks that are wanted: from the cache or, by ``fetch``, from where they come.

    ``name`` gives each chunk one that tells it from all others, in all runs; ``size`` its bytes.
    """

    def __init__(
        self, cache: ChunkCache, name: Callable[[Ranges], str], size: Callable[[Ranges], int],
        fetch: Callable[[Ranges], bytearray],
    ) -> None:  # fmt: skip
        self._cache, self._name, self._size, self._fetch = cache, name, size, fetch
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="fetch")
        self._chunks: dict[Ranges, Future[np.ndarray]] = {}

    def keep(self, wanted: FetchPlan) -> None:
        """Begin to fetch what is wanted, in that order, and let go of everything else."""
        every = dict.fromkeys([*wanted.now, *wanted.soon])
        for ranges in [ranges for ranges in self._chunks if ranges not in every]:
            self._chunks.pop(ranges).cancel()
        for ranges in every:
            known = self._chunks.get(ranges)
            if known is None or (known.done() and known.exception() is not None):
                self._chunks[ranges] = self._pool.submit(self._get, ranges)

    def content(self, ranges: Ranges) -> np.ndarray:
        """Bytes of a chunk that is kept, as soon as they are there."""
        return self._chunks[ranges].result()

    def _get(self, ranges: Ranges) -> np.ndarray:
        return self._cache.get(self._name(ranges), self._size(ranges), lambda: self._fetch(ranges))
