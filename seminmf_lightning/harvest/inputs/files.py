"""Find the files of an input, and detect when they change."""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence

from seminmf_lightning.harvest.inputs.base import digest_of

READ_IN_FULL = 2**30
"""Total bytes up to which the digest covers every byte."""
ENDS = 2**16
"""Bytes at the start and at the end of each file in the digest of larger inputs."""


def files_of(path: str | Sequence[str], suffixes: tuple[str, ...], what: str) -> list[str]:
    """List files in the order given; those of a glob or a folder (any depth) are sorted by name.

    A file that is reached twice counts once. Hidden files and folders are left out, unless they are named.

    Raises:
        FileNotFoundError: there is none; the message has the folder and the suffixes.
    """
    files: list[str] = []
    for one in [path] if isinstance(path, str | os.PathLike) else list(path):
        text = os.path.expanduser(os.fspath(one))
        if os.path.isdir(text):
            files += sorted(name for name in _walk(text) if name.lower().endswith(suffixes))
        else:
            files += (
                [text]
                if os.path.isfile(text)
                else sorted(name for name in glob.glob(text, recursive=True) if not os.path.isdir(name))
            )
    if not files:
        raise FileNotFoundError(
            f"inputs.path={path!r} matches no {what} (looked from {os.getcwd()} for {', '.join(suffixes)})"
        )
    # Links of folders to each other reach a file under many names.
    known: dict[tuple[str, str], str] = {}
    for file in files:
        known.setdefault((os.path.realpath(os.path.dirname(file)), os.path.basename(file)), file)
    return list(known.values())


def _walk(top: str) -> Iterator[str]:
    """Yield the files of a folder, also behind links to folders; each folder once, hidden ones never."""
    seen = set()
    for folder, folders, names in os.walk(top, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (os.path.join(folder, name) for name in names if not name.startswith("."))


def digest_of_files(files: Sequence[str]) -> str:
    """Return a short digest of the names and contents of files; their folder does not matter.

    Up to 1 GB in all is read in full.  Beyond that, the digest covers the size, the time of change and the
    first and last 64 KB of each file, so that the cost stays bounded.
    """
    in_full = sum(_size(file) for file in files) <= READ_IN_FULL
    return digest_of(f"{os.path.basename(file)} {_fingerprint(file, in_full)}" for file in files)


def _size(file: str) -> int:
    try:
        return os.path.getsize(file)
    except OSError:  # such as a dangling link: one unreadable example
        return 0


def _fingerprint(file: str, in_full: bool) -> str:
    digest = hashlib.sha256()
    try:
        status = os.stat(file)
        if not stat.S_ISREG(status.st_mode):
            return "no file"
        with open(file, "rb") as stream:
            if in_full:
                while chunk := stream.read(2**20):
                    digest.update(chunk)
            else:
                digest.update(str(status.st_mtime_ns).encode() + stream.read(ENDS))
                stream.seek(max(0, status.st_size - ENDS))
                digest.update(stream.read(ENDS))
    except OSError:
        return "unreadable"
    return f"{status.st_size} {digest.hexdigest()}"
