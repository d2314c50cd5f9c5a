"""Trace a row back to its token in a sentence, or its patch in an image."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from seminmf_lightning.core.commands import command
from seminmf_lightning.harvest.inputs import Inputs
from seminmf_lightning.harvest.recipe import make_inputs
from seminmf_lightning.harvest.store import Store, StoreError

MAX_WINDOWS = 2**24
"""More windows than any text has, so that example * MAX_WINDOWS + window is unique."""
COLUMNS = (("example", "window", "position"), ("start", "stop"), ("y", "x", "height", "width"))
"""Columns of an index: for every row, for tokens, for patches."""
CONTEXT = 80
"""Characters printed on each side of a token."""


@dataclass(frozen=True)
class Origin:
    """The origin of a row."""

    row: int
    example: int
    name: str
    """Name of the example: a file, a line, a topic."""
    position: int
    """Token of its window, or position in the map; -1 for a mean over several."""

    @property
    def title(self) -> str:
        """The name on one line, in printable characters."""
        return self.name.encode("utf-8", "replace").decode().replace("\n", "\\n").replace("\r", "\\r")

    def __str__(self) -> str:
        return f"{self.title}, position {self.position}"


@dataclass(frozen=True)
class TokenOrigin(Origin):
    """A token of a text.

    >>> print(TokenOrigin(0, 0, "a.txt", 1, text="the cat sat", start=4, stop=7))
    a.txt: the [[cat]] sat
    """

    text: str
    start: int
    """The token is ``text[start:stop]``; -1 for a token without text."""
    stop: int

    def __str__(self) -> str:
        if self.start < 0 and self.position < 0:
            return f"{self.title}: mean of a window"
        if self.start < 0:
            return f"{self.title}: special token at position {self.position}"
        left, right = max(0, self.start - CONTEXT), self.stop + CONTEXT
        before = self.text[left : self.start].rpartition("\n\n")[2]
        after = self.text[self.stop : right].partition("\n\n")[0]
        sentence = f"{before}[[{self.text[self.start : self.stop]}]]{after}"
        return f"{self.title}: {' '.join(sentence.split())}"


@dataclass(frozen=True)
class PatchOrigin(Origin):
    """A patch of an image."""

    box: tuple[int, int, int, int] | None
    """Top, left, bottom and right of the patch, in pixels of the image; None for a row that is not a
    patch, or for padding outside the image."""
    size: tuple[int, int]
    """Height and width of the image."""
    region: tuple[float, ...]
    """Part of the image that the network sees: top, left, height, width."""
    cell: tuple[int, int, int, int]
    """Row and column of the patch, rows and columns of its grid; -1 where there is no grid."""

    def __str__(self) -> str:
        height, width = self.size
        if self.box is None and self.cell[0] >= 0:
            return f"{self.title}: padding outside the image of {height} x {width}"
        if self.box is None and self.position >= 0 and self.cell[2] < 0:
            where = f"unknown location in the image of {height} x {width}"
            return f"{self.title}: position {self.position}, {where}"
        if self.box is None:
            return f"{self.title}: the whole image of {height} x {width}"
        top, left, bottom, right = self.box
        return f"{self.title}: patch [{top}:{bottom}, {left}:{right}] of {height} x {width} pixels"


class Tracer:
    """Traces the rows of one layer of a store, numbered as ``data=shards`` numbers them.

    Raises:
        StoreError: the store has no such layer, or is not finished.
    """

    def __init__(self, store: Store, layer: str | None = None) -> None:
        manifest = store.manifest()
        if manifest is None or not manifest["complete"]:
            raise StoreError(f"{store.folder} holds no finished harvest")
        layers = manifest["layers"]
        if layer is None and len(layers) == 1:
            layer = next(iter(layers))
        if layer not in layers:
            raise StoreError(f"{store.folder} holds the layers {', '.join(layers)}; got layer {layer!r}")
        self.store, self.layer, self._settings = store, str(layer), manifest["settings"]
        self._shards = [record for record in layers[layer]["shards"] if record["rows"]]
        files = (store.files(self.layer, record["shard"]).origin for record in self._shards)
        if missing := [file for file in files if not os.path.exists(file)]:
            raise StoreError(
                f"{missing[0]} is missing; run the same {command('harvest')} again, which restores it"
            )
        self._starts = np.cumsum([0] + [record["rows"] for record in self._shards])
        self._columns = lru_cache(maxsize=8)(self._read_columns)
        self._keys = lru_cache(maxsize=8)(self._read_keys)
        self._examples = lru_cache(maxsize=8)(store.examples)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def origin(self, row: int) -> Origin:
        """Return the origin of row ``row``.

        Raises:
            IndexError: there is no such row.
        """
        if not 0 <= row < len(self):
            raise IndexError(
                f"row {row} is not in 0..{len(self) - 1}, the rows of {self.layer} in {self.store.folder}"
            )
        index, first = self._shard_of(row)
        at = {name: int(column[row - first]) for name, column in self._columns(index).items()}
        example = self._example(self._shards[index], at["example"])
        common = {"row": row, "example": at["example"], "name": example["name"], "position": at["position"]}
        if "start" in at and "text" in example:
            return TokenOrigin(**common, text=example["text"], start=at["start"], stop=at["stop"])
        if "region" in example and "height" in at:
            region = example["region"]
            return PatchOrigin(
                **common, box=_inside(_box(at, region), region, example["size"]),
                size=tuple(example["size"]),
                region=tuple(region), cell=(at["y"], at["x"], at["height"], at["width"]),
            )  # fmt: skip
        return Origin(**common)

    def groups(self, start: int, stop: int) -> np.ndarray:
        """Return a number (stop - start,) per row: equal for all rows of one window of one example."""
        parts = []
        for index, first in enumerate(self._starts[:-1]):
            low, high = max(start - first, 0), min(stop - first, self._shards[index]["rows"])
            if low < high:
                parts.append(self._keys(index)[low:high])
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def neighbours(self, row: int) -> range:
        """Return the rows of the same window of the same example, ``row`` included."""
        index, first = self._shard_of(row)
        keys = self._keys(index)
        start, stop = (int(np.searchsorted(keys, keys[row - first], side=side)) for side in ("left", "right"))
        return range(first + start, first + stop)

    def image(self, origin: Origin) -> Any:
        """Read the PIL image of a row's example again.

        Raises:
            StoreError: the inputs have changed since the harvest.
        """
        inputs = self._inputs()
        if origin.example >= len(inputs) or inputs.identify(origin.example) != origin.name:
            raise StoreError(
                f"{origin.name} is no longer example {origin.example}: "
                "the inputs have changed since the harvest"
            )
        return inputs.read(origin.example)

    @lru_cache(maxsize=1)  # noqa: B019  (one tracer reads one set of inputs)
    def _inputs(self) -> Inputs:
        return make_inputs(self._settings["inputs"])

    def _shard_of(self, row: int) -> tuple[int, int]:
        """Return the index of the shard that holds a row, and the first row of that shard."""
        index = int(np.searchsorted(self._starts, row, side="right")) - 1
        return index, int(self._starts[index])

    def _read_keys(self, index: int) -> np.ndarray:
        columns = self._columns(index)
        return columns["example"] * MAX_WINDOWS + columns["window"]

    def _read_columns(self, index: int) -> dict[str, np.ndarray]:
        record = self._shards[index]
        stored = self.store.columns(self.layer, record["shard"])
        file = self.store.files(self.layer, record["shard"]).origin
        # The columns of tokens, and those of patches, are stored together or not at all.
        names = sorted(
            name for group in COLUMNS if group is COLUMNS[0] or group[0] in stored for name in group
        )
        if missing := [name for name in names if name not in stored]:
            raise StoreError(f"{file}: no column {missing[0]!r}; it holds {', '.join(stored)}")
        columns = {name: stored[name].numpy().astype(np.int64) for name in names}
        if len(columns["example"]) != record["rows"]:
            raise StoreError(
                f"{file}: {len(columns['example'])} rows, but the manifest says {record['rows']}"
            )
        if "y" in columns and (columns["y"] >= 0)[np.minimum(columns["height"], columns["width"]) < 1].any():
            raise StoreError(f"{file}: a patch in a grid without height or width")
        return columns

    def _example(self, record: dict[str, Any], number: int) -> dict[str, Any]:
        """Return the stored record of one example of a shard."""
        first, examples = record["examples"][0], self._examples(record["shard"])
        if not 0 <= number - first < len(examples):
            raise StoreError(
                f"{self.store.examples_file(record['shard'])}: no example {number}; "
                f"it holds {first}..{first + len(examples) - 1}"
            )
        return examples[number - first]


def _box(at: dict[str, int], region: list[float]) -> tuple[int, int, int, int] | None:
    """Return top, left, bottom and right of a cell of the grid, in whole pixels of the image."""
    if at["y"] < 0:
        return None
    top, left, height, width = region
    y, x = top + height * at["y"] / at["height"], left + width * at["x"] / at["width"]
    bottom, right = y + height / at["height"], x + width / at["width"]
    # A patch may be smaller than a pixel.
    return round(y), round(x), max(round(bottom), round(y) + 1), max(round(right), round(x) + 1)


def _inside(
    box: tuple[int, int, int, int] | None, region: list[float], size: list[int]
) -> tuple[int, int, int, int] | None:
    """Return the part of a box inside an image (height, width); None for a patch of padding."""
    top, left, height, width = region
    if box is None or (min(top, left) >= 0 and top + height <= size[0] and left + width <= size[1]):
        return box
    top, left, bottom, right = max(box[0], 0), max(box[1], 0), min(box[2], size[0]), min(box[3], size[1])
    return (top, left, bottom, right) if top < bottom and left < right else None
