"""Write files atomically, and explain errors of a full disk."""

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
    """A file does not fit; the message says what is safe and what to do."""


@contextmanager
def whole_file(path: str | os.PathLike[str], if_full: str) -> Iterator[Path]:
    """Yield a temporary path to write to; on success flush it to the disk and move it over ``path``.

    A kill at any moment leaves the old file or the new one; an error leaves the old one.  The file gets the
    mode that the umask gives, whatever the library that writes it asks for.

    Raises:
        DiskFullError: see :func:`full_disk_explained`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with full_disk_explained(path, if_full):
        try:
            partial.unlink(missing_ok=True)
            partial.touch()
            mode = partial.stat().st_mode
            yield partial
            with suppress(OSError):  # a file system without modes
                os.chmod(partial, mode)
            _move_into_place(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | os.PathLike[str], if_full: str) -> Iterator[Path]:
    """Yield a new folder to write to; on success flush its files to the disk and give it the name ``path``.

    Files get the mode that the umask gives, whatever the library that writes them asks for.
    A folder or file of that name becomes ``<path>.previous``, in place of an older one.  An error leaves
    ``path`` as it was, and so does a kill, except between the two renames, which leaves ``<path>.previous``.

    Raises:
        DiskFullError: see :func:`full_disk_explained`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    previous = path.with_name(f"{path.name}.previous")
    with full_disk_explained(path, if_full):
        try:
            _remove(partial)
            partial.mkdir()
            yield partial
            mode = partial.stat().st_mode & 0o666
            for file in partial.rglob("*"):
                if file.is_file():
                    with suppress(OSError):  # a file system without modes
                        os.chmod(file, mode)
                    with open(file, "rb+") as stream:
                        os.fsync(stream.fileno())
            if path.exists():
                _remove(previous)
                os.replace(path, previous)
            os.replace(partial, path)
            _sync_folder(path.parent)
        finally:
            _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _move_into_place(partial: Path, path: Path) -> None:
    """Flush a complete file to the disk and move it over ``path``."""
    with open(partial, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
    _sync_folder(path.parent)


def keep_previous(path: Path, previous: Path, *, may_copy: bool = True) -> None:
    """Keep a file that is about to be replaced under another name: a hard link, or a copy without links.

    Raises:
        OSError: neither works, or there are no links and ``may_copy`` is False.
    """
    spare = path.with_name(f"{path.name}.{os.getpid()}.previous.partial")
    spare.unlink(missing_ok=True)
    try:
        try:
            os.link(path, spare)
        except OSError:  # a file system without hard links
            if not may_copy:
                raise
            shutil.copy2(path, spare)
        os.replace(spare, previous)
    finally:
        spare.unlink(missing_ok=True)


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
    """Raise a DiskFullError for whatever a full disk raises; it ends with ``if_full``, the remedy."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if (code := _disk_full_code(error)) is None:
            raise
        folder = next(parent for parent in Path(path).absolute().parents if parent.exists())
        free = shutil.disk_usage(folder).free
        raise DiskFullError(
            code,
            f"the disk is full: {path} does not fit "
            f"({os.strerror(code)}; {free:,} bytes are free in {folder}); {if_full}",
        ) from error


def _disk_full_code(error: BaseException | None) -> int | None:
    """Return the error number of a full disk if that is the cause of an error.

    torch raises a RuntimeError while it handles the OSError; safetensors has the number in its text.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return error.errno
        if (number := re.search(r"\(os error (\d+)\)", str(error))) and int(number[1]) in FULL:
            return int(number[1])
        error = error.__cause__ or error.__context__
    return None
