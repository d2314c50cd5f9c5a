"""How a row is shown: a token in its sentence, a patch in its photograph, or its number."""

from __future__ import annotations

import base64
import io
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from seminmf_lightning.data import HarvestedRows, Source
from seminmf_lightning.harvest import Store, StoreError
from seminmf_lightning.harvest.provenance import PatchOrigin, TokenOrigin, Tracer

CONTEXT = 100
"""Characters of text shown on each side of a token."""
SIDE = 144
"""Pixels of the longer side of a photograph."""
QUALITY = 70


class Origins(ABC):
    """Where rows come from, in a form that a page can show."""

    note: str | None = None
    """Said at the head of the page."""

    @abstractmethod
    def groups(self, start: int, stop: int) -> np.ndarray:
        """A number (stop - start,) for each row: rows of one example have the same, and are neighbours."""

    @abstractmethod
    def neighbours(self, row: int) -> range:
        """Rows whose codes are shown along with it, itself included."""

    @abstractmethod
    def show(self, row: int, rows: range, codes: np.ndarray) -> dict[str, Any]:
        """Plain data for the page: ``codes`` are whole numbers (len(rows),), 127ths of the largest ``|z|`` of
        ``rows``."""


class RowNumbers(Origins):
    """Rows that nothing more is known of."""

    def __init__(
        self, where: Callable[[int], str], groups: np.ndarray | None, note: str | None = None
    ) -> None:
        self.where, self._groups, self.note = where, groups, note

    def groups(self, start: int, stop: int) -> np.ndarray:
        return np.arange(start, stop) if self._groups is None else np.asarray(self._groups[start:stop])

    def neighbours(self, row: int) -> range:
        return range(row, row + 1)

    def show(self, row: int, rows: range, codes: np.ndarray) -> dict[str, Any]:
        return {"name": self.where(row)}


class Harvested(Origins):
    """Rows of a store."""

    def __init__(self, tracer: Tracer, budget: int) -> None:
        self.tracer, self.budget = tracer, budget
        """Bytes that pictures may take in all."""
        self.pictures: list[str] = []
        self._numbers: dict[int, int | None] = {}

    def groups(self, start: int, stop: int) -> np.ndarray:
        return self.tracer.groups(start, stop)

    def neighbours(self, row: int) -> range:
        rows = self.tracer.neighbours(row)
        origin = self.tracer.origin(row)
        if not isinstance(origin, TokenOrigin) or origin.start < 0:
            return rows
        return range(max(rows.start, row - CONTEXT // 2), min(rows.stop, row + CONTEXT // 2))

    def show(self, row: int, rows: range, codes: np.ndarray) -> dict[str, Any]:
        origin = self.tracer.origin(row)
        if isinstance(origin, TokenOrigin) and origin.start >= 0:
            return self._sentence(origin, rows, codes)
        if isinstance(origin, PatchOrigin):
            return self._photograph(origin, rows, codes)
        return {"name": str(origin)}

    def _sentence(self, origin: TokenOrigin, rows: range, codes: np.ndarray) -> dict[str, Any]:
        text, (left, right) = origin.text, self._excerpt(origin, rows)
        shift, tokens = left - (left > 0), []  # of the ellipsis
        for row, code in zip(rows, codes.tolist(), strict=True):
            if not code and row != origin.row:
                continue
            other = self.tracer.origin(row)
            assert isinstance(other, TokenOrigin)
            if left <= other.start and other.stop <= right:
                tokens.append([other.start - shift, other.stop - shift, code, int(row == origin.row)])
        return {
            "name": origin.name,
            "text": "…" * (left > 0) + text[left:right] + "…" * (right < len(text)),
            "tokens": tokens,
        }

    def _excerpt(self, origin: TokenOrigin, rows: range) -> tuple[int, int]:
        """Whole words on both sides of a token, of those that ``rows`` have codes for: others would look like
        zeros."""
        seen = [
            other for row in (rows[0], rows[-1]) if isinstance(other := self.tracer.origin(row), TokenOrigin)
        ]
        known = [other for other in seen if other.start >= 0] + [origin]
        first, last = min(other.start for other in known), max(other.stop for other in known)
        left, right = max(first, origin.start - CONTEXT), min(last, origin.stop + CONTEXT)
        if left > first and (space := origin.text.find(" ", left, origin.start)) >= 0:
            left = space + 1
        if right < last and (space := origin.text.rfind(" ", origin.stop, right)) >= 0:
            right = space
        return left, right

    def _photograph(self, origin: PatchOrigin, rows: range, codes: np.ndarray) -> dict[str, Any]:
        shown: dict[str, Any] = {"name": str(origin)}
        number = self._picture(origin)
        if number is None:
            return shown
        cells = []
        for row, code in zip(rows, codes.tolist(), strict=True):
            if not code:
                continue
            other = self.tracer.origin(row)
            assert isinstance(other, PatchOrigin)
            if other.place[0] >= 0:
                cells.append([other.place[0], other.place[1], code])
        return shown | {"picture": number, "grid": origin.place[2:], "cells": cells, "at": origin.place[:2]}

    def _picture(self, origin: PatchOrigin) -> int | None:
        """Number of the embedded picture of an example; None when there is no room for more, or it is
        gone."""
        if origin.example not in self._numbers:
            self._numbers[origin.example] = None
            if self.budget > 0:
                try:
                    content = _jpeg(self.tracer.picture(origin), origin.region)
                except (OSError, ValueError) as error:
                    self.note = f"Some pictures could not be read again and are missing here ({error})."
                else:
                    self.budget -= len(content)
                    self._numbers[origin.example] = len(self.pictures)
                    self.pictures.append(content)
            else:
                self.note = "Pictures of weaker concepts were left out to keep this file small (max_mb)."
        return self._numbers[origin.example]


def origins_of(source: Source, budget: int = 0) -> Origins:
    """How the rows of a source are shown: by token or patch where it has an index, else by number.

    Args:
        budget: bytes that embedded pictures may take.
    """
    if isinstance(source, HarvestedRows):
        try:
            (layer,) = source.layers()
            return Harvested(Tracer(Store(source.path), layer), budget)
        except ValueError as error:
            note = f"Rows are shown by number, because their origins cannot be read: {error}"
    else:
        note = "Rows are shown by number: this data has no index of where they come from (scripts/harvest.py writes one)."
    try:
        groups = source.open_groups()
    except (StoreError, OSError):
        groups = None
    return RowNumbers(source.where, groups, note)


def seen(picture: Any, region: tuple[float, ...]) -> Any:
    """What the network saw of a picture, small."""
    top, left, height, width = region
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return picture.convert("RGB").resize(size, box=(left, top, left + width, top + height))


def _jpeg(picture: Any, region: tuple[float, ...]) -> str:
    """The same as a data URI."""
    stream = io.BytesIO()
    seen(picture, region).save(stream, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
