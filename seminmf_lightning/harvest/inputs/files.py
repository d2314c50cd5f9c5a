"""Find the files of an input, and notice when they change."""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from collections.abc import Sequence

from seminmf_lightning.harvest.inputs.base import digest_of

READ_IN_FULL = 2**30
"""Bytes of all files together up to which every byte counts."""
ENDS = 2**16
"""Bytes at the start and at the end of a file that count beyond."""


def files_of(path: str | Sequence[str], suffixes: tuple[str, ...], what: str) -> list[str]:
    """List files in the order given; those of a glob or a folder (any depth) are sorted by name.

    Raises:
        FileNotFoundError: there is none; the message says where and for what it looked.
    """
    files: list[str] = []
    for one in [path] if isinstance(path, str | os.PathLike) else list(path):
        text = os.path.expanduser(os.fspath(one))
        if os.path.isdir(text):
            names = (os.path.join(folder, name) for folder, _, files in os.walk(text) for name in files)
            files += sorted(name for name in names if name.lower().endswith(suffixes))
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
    return files


def digest_of_files(files: Sequence[str]) -> str:
    """Return a short digest of the names and contents of files; their folder does not matter.

    Up to 1 GB in all is read in full.  Beyond that, a file is known by its size, its time of change and its
    first and last 64 KB, so that the cost stays bounded.
    """
    in_full = sum(_size(file) for file in files) <= READ_IN_FULL
    return digest_of(f"{os.path.basename(file)} {_fingerprint(file, in_full)}" for file in files)


def _size(file: str) -> int:
    try:
        return os.path.getsize(file)
    except OSError:  # a dangling link, say: one unreadable example
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
