"""A folder of fetched chunks, shared by the processes of a machine, and never above its bound.

A chunk in use is locked by the process that uses it (``flock``: the lock goes with the process, however it
ends); where room is needed the chunks not used for longest are removed.  A file appears whole or not at all,
and ends with a checksum: a chunk that a disk has damaged is fetched again.
"""

from __future__ import annotations

import errno
import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CHUNK, PARTIAL = ".chunk", ".chunk.partial"  # other files of the folder are left alone
CHECKSUM_BYTES = 4


class ChunkCache:
    """Chunks by name, in ``folder``, of at most ``limit`` bytes together.

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
        """Bytes (size,) of the chunk of that name, fetched unless it is there; it stays while the array is
        referred to."""
        found = self._open(name, size)
        return self._add(name, fetch()) if found is None else found

    def _open(self, name: str, size: int) -> np.ndarray | None:
        path = self.folder / f"{name}{CHUNK}"
        try:
            file = open(path, "rb")
        except FileNotFoundError:
            return None
        with file:
            fcntl.flock(file, fcntl.LOCK_SH)
            found = os.fstat(file.fileno())
            if not found.st_nlink or found.st_size != size + CHECKSUM_BYTES:  # removed meanwhile, or damaged
                return None
            content = _mapped(file)
            if _checksum(content[:size].data) != content[size:].tobytes():
                return None
            os.utime(path)
            return content[:size]

    def _add(self, name: str, content: bytearray) -> np.ndarray:
        path, partial = self.folder / f"{name}{CHUNK}", self.folder / f"{name}{PARTIAL}"
        with self._alone():
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
                    raise OSError(
                        error.errno, f"{self.folder}: the disk is full before data.cache_gb is reached; lower that, "
                        "or choose another data.cache_dir"
                    ) from error  # fmt: skip
                raise

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process, and no other thread, adds or removes meanwhile."""
        with open(self.folder / "lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_room(self, size: int) -> bool:
        """Remove chunks until ``size`` more bytes fit; whether they do."""
        files = []
        for entry in os.scandir(self.folder):
            if entry.name.endswith(PARTIAL):  # of a process that is gone: nobody else writes now
                os.unlink(entry.path)
            elif entry.name.endswith(CHUNK):
                found = entry.stat()
                files.append((found.st_mtime_ns, found.st_size, entry.path))
        total = sum(length for _, length, _ in files)
        for _, length, path in sorted(files):
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


def _checksum(content: bytearray | memoryview) -> bytes:
    return zlib.crc32(content).to_bytes(CHECKSUM_BYTES, "little")


def _mapped(file: BinaryIO) -> np.ndarray:
    """The content.  A map has a duplicate of the file's descriptor, and with it the lock, until nobody refers
    to it."""
    # Copy-on-write, because torch warns of memory it must not write to; nothing here writes.
    return np.memmap(file, dtype=np.uint8, mode="c")
