"""Files that are whole or absent, and what to do when the disk is full."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space, quota used up, file larger than the process may write."""


class DiskFullError(OSError):
    """A file that does not fit; the message says what is safe and what to do."""


@contextmanager
def whole_file(path: str | os.PathLike[str], if_full: str) -> Iterator[Path]:
    """Yield a name beside ``path`` to write to; it is flushed to the disk and moved over ``path``, or else
    nothing is left.

    A kill at any moment leaves the old file or the new one.

    Raises:
        DiskFullError: see :func:`full_disk_explained`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with full_disk_explained(path, if_full):
        try:
            yield partial
            with open(partial, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
            _sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Flush the new name itself, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def full_disk_explained(path: str | os.PathLike[str], if_full: str) -> Iterator[None]:
    """Turn whatever a full disk raises into a DiskFullError with the path, the room there is, and
    ``if_full``: what to do."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if (code := _full(error)) is None:
            raise
        folder = next(parent for parent in Path(path).absolute().parents if parent.exists())
        raise DiskFullError(
            code, f"the disk is full: {path} does not fit ({os.strerror(code)}; {shutil.disk_usage(folder).free:,} bytes are "
            f"free in {folder}); {if_full}"
        ) from error  # fmt: skip


def _full(error: BaseException | None) -> int | None:
    """The code of a full disk, if that is what is behind an error.

    torch raises a RuntimeError of its own while the OSError is handled, safetensors has the code in its text.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return error.errno
        if (told := re.search(r"\(os error (\d+)\)", str(error))) and int(told[1]) in FULL:
            return int(told[1])
        error = error.__cause__ or error.__context__
    return None
