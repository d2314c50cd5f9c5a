"""Examples in a fixed order, read by number: a picture, a text or a tensor each."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar


class Unreadable(ValueError):  # noqa: N818  (says what is wrong with the example)
    """One example that cannot be read: skipped, counted and listed."""


class Inputs(ABC):
    """A new kind is one file with a dataclass that extends this one, and one YAML in
    ``configs/harvest/inputs/``."""

    kind: ClassVar[str]
    """``image`` (a PIL picture), ``text`` (a str) or ``tensor``."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of examples.

        Raises:
            FileNotFoundError, ValueError: there is nothing to read; the message names the place.
        """

    @abstractmethod
    def read(self, example: int) -> Any:
        """Example by number.

        Raises:
            Unreadable: it is broken; others may not be.
        """

    def digest(self) -> str:
        """A short name for what is read, from names and sizes: other inputs have another."""
        return digest_of([str(len(self))])

    @abstractmethod
    def identify(self, example: int) -> str:
        """A name that leads a person to the example: a file, a line of it, a row of a dataset."""


def digest_of(parts: Iterable[str]) -> str:
    """A short digest of texts in their order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()[:16]
