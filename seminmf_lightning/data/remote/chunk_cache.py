"""Prefetch chunks into a folder of limited size that all processes of a machine share.

The least recently used chunks are removed to make room; a process that has mapped one keeps its content. A
file appears whole or not at all, and ends with a checksum: a damaged chunk is fetched again.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from seminmf_lightning.data.remote.objects import THREADS
from seminmf_lightning.data.sources.base import FetchPlan, Ranges

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CHUNK, PARTIAL = ".chunk", ".chunk.partial"  # other files of the folder are left alone
CRC_BYTES = 4


class ChunkCache:
    """Chunks by name in ``folder``, of at most ``limit`` bytes together.

    Raises:
        OSError: the system has no file locks, or the disk is full.
    """

    def __init__(self, folder: str | os.PathLike[str], limit: int) -> None:
        if fcntl is None:
            raise OSError("the cache of chunks needs file locks, which Windows lacks: use Linux or macOS")
        self.folder, self.limit = Path(os.path.expanduser(folder)), limit
        self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, size: int, fetch: Callable[[], bytearray]) -> np.ndarray:
        """Return the bytes (size,) of a chunk; fetch it unless the cache holds it whole and undamaged."""
        path = self.folder / f"{name}{CHUNK}"
        try:
            content = _mapped(path)
            if (
                len(content) == size + CRC_BYTES
                and _checksum(content[:size].data) == content[size:].tobytes()
            ):
                os.utime(path)
                return content[:size]
        except (FileNotFoundError, ValueError):  # absent, or empty
            pass
        return self._add(path, fetch())

    def _add(self, path: Path, content: bytearray) -> np.ndarray:
        partial = path.with_suffix(PARTIAL)
        with open(self.folder / "lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # no other process or thread adds or removes meanwhile
            if not self._make_room(len(content) + CRC_BYTES):
                return np.frombuffer(content, dtype=np.uint8)
            try:
                partial.write_bytes(content + _checksum(content))
                os.replace(partial, path)
                return _mapped(path)[: len(content)]
            except OSError as error:
                partial.unlink(missing_ok=True)
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    message = f"{self.folder}: the disk is full before data.cache_gb is reached; lower that, "
                    raise OSError(error.errno, f"{message}or choose another data.cache_dir") from error
                raise

    def _make_room(self, size: int) -> bool:
        """Remove chunks until ``size`` more bytes fit, and return whether they do."""
        chunks = []
        for entry in os.scandir(self.folder):
            if entry.name.endswith(PARTIAL):  # left by a killed process: only the lock's holder writes
                os.unlink(entry.path)
            elif entry.name.endswith(CHUNK):
                chunks.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
        total = sum(length for _, length, _ in chunks)
        for _, length, path in sorted(chunks):
            if total + size <= self.limit:
                break
            os.unlink(path)
            total -= length
        return total + size <= self.limit


class Prefetcher:
    """Loads the chunks of a plan in background threads.

    The threads handle bytes only: using torch in them would start OpenMP's threads a second time.
    """

    def __init__(self, load: Callable[[Ranges], np.ndarray]) -> None:
        self._load = load
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="fetch")
        self._chunks: dict[Ranges, Future[np.ndarray]] = {}

    def follow(self, plan: FetchPlan) -> None:
        """Load the chunks of a plan in the background, in its order, and drop all others."""
        planned = dict.fromkeys([*plan.now, *plan.soon])
        for chunk in [chunk for chunk in self._chunks if chunk not in planned]:
            self._chunks.pop(chunk).cancel()
        for chunk in planned:
            future = self._chunks.get(chunk)
            if future is None or (future.done() and future.exception() is not None):
                self._chunks[chunk] = self._pool.submit(self._load, chunk)

    def content(self, chunk: Ranges) -> np.ndarray:
        """Return the bytes of a planned chunk; wait until it is loaded."""
        return self._chunks[chunk].result()


def _checksum(content: bytearray | memoryview) -> bytes:
    return zlib.crc32(content).to_bytes(CRC_BYTES, "little")


def _mapped(path: Path) -> np.ndarray:
    # Copy-on-write, because torch warns about read-only memory; nothing here writes.
    return np.memmap(path, dtype=np.uint8, mode="c")
