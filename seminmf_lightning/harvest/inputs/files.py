"""From what a person types to files, and a name for what they hold."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence

from seminmf_lightning.harvest.inputs.base import digest_of


def files_of(path: str | Sequence[str], suffixes: tuple[str, ...], what: str) -> list[str]:
    """Files in the order given, those of one glob or folder (searched to any depth) sorted by name.

    Raises:
        FileNotFoundError: there is none; the message says where and for what it was looked.
    """
    found: list[str] = []
    for one in [path] if isinstance(path, str | os.PathLike) else list(path):
        text = os.path.expanduser(os.fspath(one))
        if os.path.isdir(text):
            names = (os.path.join(folder, name) for folder, _, files in os.walk(text) for name in files)
            found += sorted(name for name in names if name.lower().endswith(suffixes))
        else:
            found += [text] if os.path.isfile(text) else sorted(glob.glob(text, recursive=True))
    if not found:
        raise FileNotFoundError(
            f"inputs.path={path!r} matches no {what} (looked from {os.getcwd()} for {', '.join(suffixes)})"
        )
    return found


def digest_of_files(files: Iterable[str]) -> str:
    """A short digest of files' names and sizes; where they lie does not matter."""
    return digest_of(f"{os.path.basename(file)} {os.path.getsize(file)}" for file in files)
