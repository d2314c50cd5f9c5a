"""Text files."""

from __future__ import annotations

import codecs
import json
import math
import os
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from seminmf_lightning.core.checks import one_of
from seminmf_lightning.harvest.inputs.base import Inputs, Unreadable
from seminmf_lightning.harvest.inputs.files import digest_of_files, files_of
from seminmf_lightning.io.untrusted import Refused, file_size

BYTE_ORDER_MARK = "\ufeff"
SUFFIXES = (".txt", ".md", ".jsonl")
PART = 2**20
"""Files beyond this many bytes are read in parts of about this size, one example each, to bound memory."""
BORDER = 2**16
"""Bytes after the end of a part that are searched for a border between words."""
DIVISIBLE = ("utf-8", "ascii", "iso8859", "cp125")
"""Encodings in which the byte of a space never belongs to another character."""
MARK_EVERY = 256
"""Lines between two stored offsets, so that memory stays small for any number of lines."""


@dataclass
class TextFiles(Inputs):
    """One text per file or per line; for a line of ``.jsonl`` the value of ``field``.

    A file of more than a megabyte gives one text per part, cut between words.
    """

    path: str | Sequence[str]
    """A file, a folder (any depth) of ``.txt``, ``.md`` and ``.jsonl``, a glob, or a list of them."""
    per: str = "auto"
    """``file``, ``line``, or ``auto``: line for ``.jsonl``, file for others."""
    field: str = "text"
    """Key of the text in each line of a ``.jsonl`` file."""
    encoding: str = "utf-8"
    kind = "text"

    def __post_init__(self) -> None:
        one_of("inputs.per", self.per, ("auto", "file", "line"))
        try:
            name = codecs.lookup(self.encoding).name
        except LookupError as error:
            raise ValueError(
                f"inputs.encoding={self.encoding!r} is not an encoding that Python knows"
            ) from error
        if self.per == "line" and name.startswith(("utf-16", "utf-32")):
            raise ValueError(
                f"inputs.encoding={self.encoding!r} cannot be cut into lines; convert the files to utf-8"
            )

    @cached_property
    def files(self) -> list[str]:
        return files_of(self.path, SUFFIXES, "text")

    def _by_line(self, file: str) -> bool:
        return self.per == "line" or (self.per == "auto" and file.lower().endswith(".jsonl"))

    @cached_property
    def _marks(self) -> tuple[list[int], list[list[int]]]:
        """For each file the number of its first text, and the byte offset of every 256th line."""
        starts, marks = [0], []
        for file in self.files:
            lines, offset, offsets = 0, 0, []
            if self._by_line(file):
                try:
                    file_size(Path(file))
                    with open(file, "rb") as stream:
                        for line in stream:
                            if lines % MARK_EVERY == 0:
                                offsets.append(offset)
                            offset += len(line)
                            lines += 1
                except (OSError, Refused):  # a dangling link or a pipe: one example, unreadable
                    lines, offsets = 1, [0]
            else:
                lines = self._parts(file)
            starts.append(starts[-1] + lines)
            marks.append(offsets)
        if starts[-1] == 0:
            raise ValueError(f"inputs.path={self.path!r}: the files hold no line")
        return starts, marks

    def __len__(self) -> int:
        return self._marks[0][-1]

    def read(self, example: int) -> Any:
        index, line = self._locate(example)
        file = self.files[index]
        try:
            file_size(Path(file))
            with open(file, "rb") as stream:
                if not self._by_line(file):
                    start, stop = _border(stream, line), _border(stream, line + 1)
                    stream.seek(start)
                    last = line + 1 == self._parts(file)
                    content = stream.read(-1 if last else stop - start)
                    return content.decode(self.encoding).removeprefix(BYTE_ORDER_MARK)
                stream.seek(self._marks[1][index][line // MARK_EVERY])
                raw = next(islice(stream, line % MARK_EVERY, None), b"").decode(self.encoding).rstrip("\r\n")
                raw = raw.removeprefix(BYTE_ORDER_MARK)
        except (OSError, UnicodeError, Refused) as error:
            raise Unreadable(f"{self.identify(example)}: not text in {self.encoding} ({error})") from error
        return self._field(raw, example) if file.lower().endswith(".jsonl") else raw

    def _field(self, raw: str, example: int) -> str:
        if not raw.strip():
            return ""  # a blank line holds no text, and is not an error
        try:
            record = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"{self.identify(example)}: not JSON ({error})") from error
        if not isinstance(record, dict) or not isinstance(record.get(self.field), str):
            keys = type(record).__name__
            if isinstance(record, dict):
                keys = ", ".join(f"{key}: {type(value).__name__}" for key, value in record.items())
            raise Unreadable(
                f"{self.identify(example)}: no text under {self.field!r} (found {keys}); set inputs.field"
            )
        return record[self.field]

    def _locate(self, example: int) -> tuple[int, int]:
        """Return the index of the file, and the line or part of it."""
        starts = self._marks[0]
        index = bisect_right(starts, example) - 1
        return index, example - starts[index]

    def _parts(self, file: str) -> int:
        """Return the number of parts of a file that is not read by line."""
        if not codecs.lookup(self.encoding).name.startswith(DIVISIBLE) or not os.path.isfile(file):
            return 1
        return max(1, math.ceil(os.path.getsize(file) / PART))

    def digest(self) -> str:
        return digest_of_files(self.files)

    def identify(self, example: int) -> str:
        index, line = self._locate(example)
        file = self.files[index]
        if self._by_line(file):
            return f"{file}, line {line + 1}"
        count = self._marks[0][index + 1] - self._marks[0][index]
        return file if count == 1 else f"{file}, part {line + 1} of {count}"


def _border(stream: BinaryIO, part: int) -> int:
    """Return the byte at which a part starts: the first border between words after its share of the file."""
    if part == 0:
        return 0
    stream.seek(part * PART)
    block = stream.read(BORDER)
    if border := re.search(rb"\n|(?= [^ ])", block):
        return part * PART + border.end()
    first = next((at for at, byte in enumerate(block) if byte & 0xC0 != 0x80), 0)  # not inside a character
    return part * PART + first
