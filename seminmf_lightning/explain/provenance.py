"""Show the origin of a row: a token in its sentence, a patch in its image, or a row number."""

from __future__ import annotations

import base64
import io
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from seminmf_lightning.core.commands import command
from seminmf_lightning.data import Source
from seminmf_lightning.explain.automatic_labels import piece
from seminmf_lightning.harvest import Store, StoreError
from seminmf_lightning.harvest.provenance import PatchOrigin, TokenOrigin, Tracer

CONTEXT = 100
"""Characters of text shown on each side of a token."""
SIDE = 192
"""Pixels of the longer side of an image."""
QUALITY = 70
"""JPEG quality of images."""


class Origins(ABC):
    """Origins of the rows of a source, as JSON for a page."""

    note: str | None = None
    """Shown at the head of the page."""

    @property
    def limited(self) -> bool:
        """Whether examples that are shown first may use up what later ones need."""
        return False

    @abstractmethod
    def groups(self, start: int, stop: int) -> np.ndarray:
        """Return one id (stop - start,) per row; the rows of one example share it and are consecutive."""

    @abstractmethod
    def neighbours(self, row: int) -> range:
        """Return the rows whose codes are shown around ``row``, itself included."""

    def token(self, row: int) -> str | None:
        """Return the token of a row as labels write it, in lower case; None where it is none."""
        return None

    @abstractmethod
    def show(self, row: int, rows: range, codes: np.ndarray) -> dict[str, Any]:
        """Return JSON for the page; ``codes`` (len(rows),) are integers, the largest ``|z|`` of ``rows`` is
        127."""


class RowNumbers(Origins):
    """Rows whose origin is only a file and a number.

    >>> RowNumbers(lambda row: f"a.npy, row {row}", None).show(3, range(3, 4), np.ones(1))
    {'name': 'a.npy, row 3'}
    """

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
    """Rows of a harvest store, traced to tokens or patches.

    Args:
        tracer: finds the origin of a row.
        budget: bytes that embedded images may take in all.
    """

    def __init__(self, tracer: Tracer, budget: int) -> None:
        self.tracer, self.budget = tracer, budget
        self.images: list[str] = []
        self._image_ids: dict[int, int | None] = {}

    @property
    def limited(self) -> bool:
        return len(self.tracer) > 0 and isinstance(self.tracer.origin(0), PatchOrigin)

    def groups(self, start: int, stop: int) -> np.ndarray:
        return self.tracer.groups(start, stop)

    def neighbours(self, row: int) -> range:
        rows = self.tracer.neighbours(row)
        origin = self.tracer.origin(row)
        if not isinstance(origin, TokenOrigin) or origin.start < 0:
            return rows
        return range(max(rows.start, row - CONTEXT // 2), min(rows.stop, row + CONTEXT // 2))

    def token(self, row: int) -> str | None:
        origin = self.tracer.origin(row)
        if not isinstance(origin, TokenOrigin) or origin.start < 0:
            return None
        return piece(origin.text, origin.start, origin.stop).lower()

    def show(self, row: int, rows: range, codes: np.ndarray) -> dict[str, Any]:
        origin = self.tracer.origin(row)
        if isinstance(origin, TokenOrigin) and origin.start >= 0:
            return self._sentence(origin, rows, codes)
        if isinstance(origin, PatchOrigin):
            return self._image(origin, rows, codes)
        return {"name": str(origin)}

    def _sentence(self, origin: TokenOrigin, rows: range, codes: np.ndarray) -> dict[str, Any]:
        text, (left, right) = origin.text, self._excerpt(origin, rows)
        shift, tokens = left - (left > 0), []  # positions on the page include the ellipsis
        for row, code in zip(rows, codes.tolist(), strict=True):
            if not code and row != origin.row:
                continue
            other = self.tracer.origin(row)
            assert isinstance(other, TokenOrigin)
            if left <= other.start and other.stop <= right:
                tokens.append([other.start - shift, other.stop - shift, code, int(row == origin.row)])
        shown = "…" * (left > 0) + text[left:right] + "…" * (right < len(text))
        return {"name": origin.name, "text": shown, "tokens": tokens}

    def _excerpt(self, origin: TokenOrigin, rows: range) -> tuple[int, int]:
        """Return whole words on both sides of a token, only from ``rows``: other words have no codes to
        show."""
        ends = (self.tracer.origin(row) for row in (rows[0], rows[-1]))
        inside = [end for end in ends if isinstance(end, TokenOrigin) and end.start >= 0] + [origin]
        first, last = min(end.start for end in inside), max(end.stop for end in inside)
        left, right = max(first, origin.start - CONTEXT), min(last, origin.stop + CONTEXT)
        if left > first and (space := origin.text.find(" ", left, origin.start)) >= 0:
            left = space + 1
        if right < last and (space := origin.text.rfind(" ", origin.stop, right)) >= 0:
            right = space
        return left, right

    def _image(self, origin: PatchOrigin, rows: range, codes: np.ndarray) -> dict[str, Any]:
        shown: dict[str, Any] = {"name": str(origin)}
        number = self._image_id(origin)
        if number is None:
            return shown
        cells = []
        for row, code in zip(rows, codes.tolist(), strict=True):
            if not code:
                continue
            other = self.tracer.origin(row)
            assert isinstance(other, PatchOrigin)
            if other.cell[0] >= 0:
                cells.append([other.cell[0], other.cell[1], code])
        return shown | {"image": number, "grid": origin.cell[2:], "cells": cells, "at": origin.cell[:2]}

    def _image_id(self, origin: PatchOrigin) -> int | None:
        """Index of an example's embedded image; None if ``budget`` is spent or the image cannot be read."""
        if origin.example not in self._image_ids:
            self._image_ids[origin.example] = None
            if self.budget > 0:
                try:
                    content = _data_uri(network_view(self.tracer.image(origin), origin.region))
                except (OSError, ValueError) as error:
                    self.note = f"Some images could not be read again and are missing here ({error})."
                else:
                    self.budget -= len(content)
                    self._image_ids[origin.example] = len(self.images)
                    self.images.append(content)
            else:
                self.note = "Images of weaker concepts were left out to keep this file small (max_mb)."
        return self._image_ids[origin.example]


def origins_of(source: Source, budget: int = 0) -> Origins:
    """Return the origins of a source's rows: tokens or patches where it has an index, otherwise row numbers.

    Args:
        source: rows, prepared.
        budget: bytes that embedded images may take.
    """
    try:
        if harvest := source.harvest():
            folder, layer = harvest
            return Harvested(Tracer(Store(folder), layer), budget)
        note = f"Rows are shown by number: only the data of `{command('harvest')}` has an index of origins."
    except ValueError as error:
        note = f"Rows are shown by number, because their origins cannot be read: {error}"
    try:
        groups = source.open_groups()
    except (StoreError, OSError):
        groups = None
    return RowNumbers(source.where, groups, note)


def network_view(image: Any, region: tuple[float, ...], side: int = SIDE) -> Any:
    """Return the region (top, left, height, width) of a PIL image, its longer side of ``side`` pixels."""
    top, left, height, width = region
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image, box = image.convert("RGB"), (left, top, left + width, top + height)
    if min(left, top) < 0 or box[2] > image.width or box[3] > image.height:  # padding, which resize refuses
        return image.crop(tuple(round(side) for side in box)).resize(size)
    return image.resize(size, box=box)


def _data_uri(image: Any) -> str:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
