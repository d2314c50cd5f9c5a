"""Find the files of an input, and notice when they change."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence

from seminmf_lightning.harvest.inputs.base import digest_of


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
            files += [text] if os.path.isfile(text) else sorted(glob.glob(text, recursive=True))
    if not files:
        raise FileNotFoundError(
            f"inputs.path={path!r} matches no {what} (looked from {os.getcwd()} for {', '.join(suffixes)})"
        )
    return files


def digest_of_files(files: Iterable[str]) -> str:
    """Return a short digest of the names and sizes of files; their folder does not matter."""
    return digest_of(f"{os.path.basename(file)} {os.path.getsize(file)}" for file in files)
