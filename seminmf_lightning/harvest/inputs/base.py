"""Examples in a fixed order, read by number; each is an image, a text or a tensor."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar


class Unreadable(ValueError):  # noqa: N818  (names the state of an example)
    """One example cannot be read: it is skipped, counted and listed."""


class Inputs(ABC):
    """A kind of input: one file with a dataclass that extends this one, and one YAML in
    ``configs/harvest/inputs/``."""

    kind: ClassVar[str]
    """``image`` (a PIL image), ``text`` (a str) or ``tensor``."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples.

        Raises:
            FileNotFoundError, ValueError: there is nothing to read; the message has the path.
        """

    @abstractmethod
    def read(self, example: int) -> Any:
        """Return one example by number.

        Raises:
            Unreadable: this example is broken.
        """

    @abstractmethod
    def digest(self) -> str:
        """Return a short digest of the content, which also detects edits that keep the size."""

    @abstractmethod
    def identify(self, example: int) -> str:
        """Name an example for people: a file, a line of a file, a row of a data set."""


def digest_of(parts: Iterable[str]) -> str:
    """Return a short digest of texts in their order.

    >>> digest_of(["a", "b"]) == digest_of(["ab"])
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()[:16]
