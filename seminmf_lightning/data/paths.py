"""From what a person types (a file, several, a glob, a folder) to a sorted list of files."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def find_files(path: Paths, suffix: str) -> list[Path]:
    """Files in the order given, those of one glob or folder sorted by name.

    Raises:
        TypeError: not a path or a list of paths.
        FileNotFoundError: something matches no file; the message names it and the folder looked in.
    """
    if isinstance(path, str | os.PathLike):
        path = [path]
    if not isinstance(path, Sequence) or not all(isinstance(one, str | os.PathLike) for one in path):
        raise TypeError(f"data.path must be a path, a glob, or a list of them; got {path!r}")
    found: list[Path] = []
    for one in path:
        text = os.path.expanduser(os.fspath(one))
        pattern = os.path.join(glob.escape(text), f"*{suffix}") if os.path.isdir(text) else text
        matches = (
            [Path(text)] if os.path.isfile(text) else sorted(map(Path, glob.glob(pattern, recursive=True)))
        )
        if not matches:
            raise FileNotFoundError(
                f"data.path={os.fspath(one)!r} matches no file (looked from {os.getcwd()})"
            )
        found += matches
    if not found:
        raise FileNotFoundError("data.path is an empty list: name at least one file")
    return found
