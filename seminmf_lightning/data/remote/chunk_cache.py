"""Fetch chunks ahead of their use into a folder that all processes of a machine share and that never exceeds
its limit.

A process locks the chunks that it uses (``flock``: the lock ends with the process, however it ends). To make
room, the chunks that were not used for longest are removed. A file appears whole or not at all, and ends with
a checksum: a chunk that a disk has damaged is fetched again.
"""

from __future__ import annotations

import errno
import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from seminmf_lightning.data.remote.objects import THREADS
from seminmf_lightning.data.sources.base import FetchPlan, Ranges

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CHUNK, PARTIAL = ".chunk", ".chunk.partial"  # other files of the folder are left alone
CHECKSUM_BYTES = 4


class ChunkCache:
    """Chunks by name in ``folder``, of at most ``limit`` bytes together.

    Raises:
        OSError: the system has no file locks, or the disk is full.
    """

    def __init__(self, folder: str | os.PathLike[str], limit: int) -> None:
        if fcntl is None:
            raise OSError(
                "the cache of chunks needs file locks, which this system does not have: use Linux or macOS"
            )
        self.folder, self.limit = Path(os.path.expanduser(folder)), limit
        self.folder.mkdir(parents=True, exist_ok=True)
        self._warned = False

    def get(self, name: str, size: int, fetch: Callable[[], bytearray]) -> np.ndarray:
        """The bytes (size,) of a chunk, fetched if they are not here; they stay while the array is in use."""
        content = self._open(name, size)
        return self._add(name, fetch()) if content is None else content

    def _open(self, name: str, size: int) -> np.ndarray | None:
        path = self.folder / f"{name}{CHUNK}"
        try:
            file = open(path, "rb")
        except FileNotFoundError:
            return None
        with file:
            fcntl.flock(file, fcntl.LOCK_SH)
            status = os.fstat(file.fileno())
            if not status.st_nlink or status.st_size != size + CHECKSUM_BYTES:  # just removed, or damaged
                return None
            content = _mapped(file)
            if _checksum(content[:size].data) != content[size:].tobytes():
                return None
            os.utime(path)
            return content[:size]

    def _add(self, name: str, content: bytearray) -> np.ndarray:
        path, partial = self.folder / f"{name}{CHUNK}", self.folder / f"{name}{PARTIAL}"
        with self._locked():
            if not self._make_room(len(content) + CHECKSUM_BYTES):
                if not self._warned:
                    self._warned = True
                    warnings.warn(
                        f"{self.folder}: full of chunks in use; others stay in memory. Raise data.cache_gb",
                        stacklevel=2,
                    )
                return np.frombuffer(content, dtype=np.uint8)
            try:
                with open(partial, "wb") as target:
                    target.write(content)
                    target.write(_checksum(content))
                with open(partial, "rb") as file:
                    fcntl.flock(file, fcntl.LOCK_SH)
                    os.replace(partial, path)
                    return _mapped(file)[: len(content)]
            except OSError as error:
                partial.unlink(missing_ok=True)
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    message = f"{self.folder}: the disk is full before data.cache_gb is reached; lower that, "
                    raise OSError(error.errno, f"{message}or choose another data.cache_dir") from error
                raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep all other processes and threads from adding and removing chunks."""
        with open(self.folder / "lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_room(self, size: int) -> bool:
        """Remove chunks until ``size`` more bytes fit, and return whether they do."""
        chunks = []
        for entry in os.scandir(self.folder):
            if entry.name.endswith(PARTIAL):  # left by a process that was killed: nobody else writes now
                os.unlink(entry.path)
            elif entry.name.endswith(CHUNK):
                chunks.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
        total = sum(length for _, length, _ in chunks)
        for _, length, path in sorted(chunks):
            if total + size <= self.limit:
                break
            with open(path, "r+b") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                os.unlink(path)
                total -= length
        return total + size <= self.limit


class Prefetcher:
    """Loads the chunks of a plan in background threads.

    Threads handle bytes alone: one that touched torch would start OpenMP's threads a second time.
    """

    def __init__(self, load: Callable[[Ranges], np.ndarray]) -> None:
        self._load = load
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="fetch")
        self._chunks: dict[Ranges, Future[np.ndarray]] = {}

    def follow(self, plan: FetchPlan) -> None:
        """Start to load the chunks of a plan, in its order, and drop all others."""
        planned = dict.fromkeys([*plan.now, *plan.soon])
        for chunk in [chunk for chunk in self._chunks if chunk not in planned]:
            self._chunks.pop(chunk).cancel()
        for chunk in planned:
            future = self._chunks.get(chunk)
            if future is None or (future.done() and future.exception() is not None):
                self._chunks[chunk] = self._pool.submit(self._load, chunk)

    def content(self, chunk: Ranges) -> np.ndarray:
        """The bytes of a planned chunk, once they are here."""
        return self._chunks[chunk].result()


def _checksum(content: bytearray | memoryview) -> bytes:
    return zlib.crc32(content).to_bytes(CHECKSUM_BYTES, "little")


def _mapped(file: BinaryIO) -> np.ndarray:
    """Map a file. A map holds a duplicate of the descriptor, and with it the lock, until nobody refers to
    it."""
    # Copy-on-write, because torch warns of memory that it must not write to; nothing here writes.
    return np.memmap(file, dtype=np.uint8, mode="c")
