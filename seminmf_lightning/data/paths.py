"""Turn a path, a glob, a folder or a list of them into a list of files, and refuse gaps in their numbers."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

NUMBERED = re.compile(r"(.*?)(\d+)(-of-(\d+))?(\D*)$", re.DOTALL)
"""Start of a name, its last number, the total if the name has one (``-of-00004``), and the rest."""


def find_files(path: Paths, suffix: str) -> list[Path]:
    """Return files in the order given; those of one glob or folder are sorted by name.

    Raises:
        TypeError: not a path or a list of paths.
        FileNotFoundError: a path matches no file; the message names it and the folder it is relative to.
        ValueError: a numbered file is missing from a glob or folder.
    """
    if isinstance(path, str | os.PathLike):
        path = [path]
    if not isinstance(path, Sequence) or not all(isinstance(one, str | os.PathLike) for one in path):
        raise TypeError(f"data.path must be a path, a glob, or a list of them; got {path!r}")
    if not path:
        raise FileNotFoundError("data.path is an empty list: name at least one file")
    files: list[Path] = []
    for one in path:
        text = os.path.expanduser(os.fspath(one))
        if os.path.isfile(text):
            files.append(Path(text))
            continue
        if os.path.isdir(text):
            names = [name for name in os.listdir(text) if name.lower().endswith(suffix) and name[0] != "."]
            matches = sorted(os.path.join(text, name) for name in names)
        else:
            matches = sorted(glob.glob(text, recursive=True))
        if not matches:
            what = f"holds no *{suffix} file" if os.path.isdir(text) else "matches no file"
            advice = "; in a glob, [[] stands for a bracket" if "[" in text else ""
            raise FileNotFoundError(
                f"data.path={os.fspath(one)!r} {what} (looked from {os.getcwd()}){advice}"
            )
        refuse_missing(matches, os.path.exists)
        files += map(Path, matches)
    return files


def refuse_missing(names: Iterable[str], exists: Callable[[str], bool]) -> None:
    """Raise ValueError if a file is missing from a numbered set, such as 2 of 0, 1, 3 or of
    ``00000-of-00004``.

    A file that exists but was not asked for is not missing. Files whose
    numbers are mostly absent, such as layers 4, 8 and 12, are not a numbered set.
    """
    numbered: dict[tuple[str, str, str], dict[int, str]] = {}
    for name in names:
        if match := NUMBERED.match(name):
            start, number, _, total, rest = match.groups()
            numbered.setdefault((start, total or "", rest), {})[int(number)] = number
    for (start, total, rest), present in numbered.items():
        low, high = min(present), max(present)
        if total:  # counted from 0, or from 1 if the last number is there and the first is not
            low = 1 if int(total) in present and 0 not in present else 0
            high = low + int(total) - 1
        missing = high - low + 1 - len(present)
        width = len(present[min(present)])
        padded = present[min(present)].startswith("0") and width > 1
        is_set = bool(total) or (missing < len(present) and (padded or low <= 1))
        if missing <= 0 or not is_set:
            continue
        ending = f"-of-{total}{rest}" if total else rest
        absent = (
            f"{start}{number:0{width}}{ending}" for number in range(low, high + 1) if number not in present
        )
        if lost := list(islice((name for name in absent if not exists(name)), 3)):
            raise ValueError(
                f"{', '.join(lost)}{', ...' if missing > 3 else ''}: missing from a numbered set of which "
                f"{len(present)} are there; restore the file, or list the files to read: data.path=[a,b]"
            )
