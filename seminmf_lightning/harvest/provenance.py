"""From a row back to the token in its sentence, or the patch in its picture."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from seminmf_lightning.harvest.inputs import Inputs
from seminmf_lightning.harvest.recipe import make_inputs
from seminmf_lightning.harvest.store import Store, StoreError

WINDOWS = 2**24
"""More than a text has windows."""
COLUMNS = (("example", "window", "position"), ("start", "stop"), ("y", "x", "height", "width"))
"""Of the index: those that every row has, those of tokens, those of patches."""
CONTEXT = 80
"""Characters shown on each side of a token."""


@dataclass(frozen=True)
class Origin:
    """Where a row comes from."""

    row: int
    example: int
    name: str
    """Of the example: a file, a line, a topic."""
    position: int
    """Token of its window, or place in the map; -1 for the mean of several."""

    @property
    def title(self) -> str:
        """The name on one line, in characters that can be printed."""
        return self.name.encode("utf-8", "replace").decode().replace("\n", "\\n").replace("\r", "\\r")

    def __str__(self) -> str:
        return f"{self.title}, position {self.position}"


@dataclass(frozen=True)
class TokenOrigin(Origin):
    """A token; ``text[start:stop]``, -1 where it stands for no text."""

    text: str
    start: int
    stop: int

    def __str__(self) -> str:
        if self.start < 0:
            return f"{self.title}: {'mean of a window' if self.position < 0 else f'special token at position {self.position}'}"
        left, right = max(0, self.start - CONTEXT), self.stop + CONTEXT
        before = self.text[left : self.start].rpartition("\n\n")[2]
        after = self.text[self.stop : right].partition("\n\n")[0]
        sentence = f"{before}[[{self.text[self.start : self.stop]}]]{after}"
        return f"{self.title}: {' '.join(sentence.split())}"


@dataclass(frozen=True)
class PatchOrigin(Origin):
    """A patch; ``box`` is its top, left, bottom and right in pixels of the picture, or None for the whole of
    it."""

    box: tuple[int, int, int, int] | None
    size: tuple[int, int]
    """Height and width of the picture."""
    region: tuple[float, ...]
    """What the network sees of it: top, left, height, width."""
    place: tuple[int, int, int, int]
    """Row and column of the patch, rows and columns of the grid; -1 where there is no grid."""

    def __str__(self) -> str:
        if self.box is None:
            return f"{self.title}: the whole picture of {self.size[0]} x {self.size[1]}"
        top, left, bottom, right = self.box
        return (
            f"{self.title}: patch [{top}:{bottom}, {left}:{right}] of {self.size[0]} x {self.size[1]} pixels"
        )


class Tracer:
    """The origins of the rows of one layer of a store, by row number as ``data=shards`` counts them.

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
            raise StoreError(f"{store.folder}: which layer? It holds {', '.join(layers)}; got {layer!r}")
        self.store, self.layer, self._settings = store, str(layer), manifest["settings"]
        self._shards = [record for record in layers[layer]["shards"] if record["rows"]]
        files = (store.files(self.layer, record["shard"]).origin for record in self._shards)
        if missing := [file for file in files if not os.path.exists(file)]:
            raise StoreError(
                f"{missing[0]} is missing; run the same scripts/harvest.py again, which writes it anew"
            )
        self._starts = np.cumsum([0] + [record["rows"] for record in self._shards])
        self._columns = lru_cache(maxsize=8)(self._read_columns)
        self._keys = lru_cache(maxsize=8)(self._read_keys)
        self._examples = lru_cache(maxsize=8)(store.examples)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def origin(self, row: int) -> Origin:
        """Where row ``row`` comes from.

        Raises:
            IndexError: there is no such row.
        """
        if not 0 <= row < len(self):
            raise IndexError(
                f"row {row} is not in 0..{len(self) - 1}, the rows of {self.layer} in {self.store.folder}"
            )
        index = int(np.searchsorted(self._starts, row, side="right")) - 1
        record, columns = self._shards[index], self._columns(index)
        at = {name: int(column[row - self._starts[index]]) for name, column in columns.items()}
        example = self._example(record, at["example"])
        known = {"row": row, "example": at["example"], "name": example["name"], "position": at["position"]}
        if "start" in at and "text" in example:
            return TokenOrigin(**known, text=example["text"], start=at["start"], stop=at["stop"])
        if "region" in example and "height" in at:
            place = (at["y"], at["x"], at["height"], at["width"])
            box = _box(at, example["region"])
            return PatchOrigin(
                **known, box=box, size=tuple(example["size"]), region=tuple(example["region"]), place=place
            )
        return Origin(**known)

    def groups(self, start: int, stop: int) -> np.ndarray:
        """One number (stop - start,) for all rows of the same window of the same example."""
        parts = []
        for index, first in enumerate(self._starts[:-1]):
            low, high = max(start - first, 0), min(stop - first, self._shards[index]["rows"])
            if low < high:
                parts.append(self._keys(index)[low:high])
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def neighbours(self, row: int) -> range:
        """The rows of the same window of the same example, ``row`` included."""
        index = int(np.searchsorted(self._starts, row, side="right")) - 1
        first, keys = int(self._starts[index]), self._keys(index)
        key = keys[row - first]
        return range(
            first + int(np.searchsorted(keys, key)), first + int(np.searchsorted(keys, key, side="right"))
        )

    def _read_keys(self, index: int) -> np.ndarray:
        columns = self._columns(index)
        return columns["example"] * WINDOWS + columns["window"]

    def picture(self, origin: Origin) -> Any:
        """The PIL picture of a row's example, read anew.

        Raises:
            StoreError: the inputs are no longer those that were harvested.
        """
        inputs = self._inputs()
        if origin.example >= len(inputs) or inputs.identify(origin.example) != origin.name:
            raise StoreError(
                f"{origin.name} is no longer example {origin.example}: the inputs have changed since the harvest"
            )
        return inputs.read(origin.example)

    @lru_cache(maxsize=1)  # noqa: B019  (one tracer, one inputs)
    def _inputs(self) -> Inputs:
        return make_inputs(self._settings["inputs"])

    def _read_columns(self, index: int) -> dict[str, np.ndarray]:
        record, present = self._shards[index], self.store.columns(self.layer, self._shards[index]["shard"])
        file = self.store.files(self.layer, record["shard"]).origin
        wanted = {name for names in COLUMNS if names == COLUMNS[0] or names[0] in present for name in names}
        if missing := sorted(wanted - set(present)):
            raise StoreError(f"{file}: no column {missing[0]!r}; it holds {', '.join(present)}")
        found = {name: present[name].numpy().astype(np.int64) for name in sorted(wanted)}
        if len(found["example"]) != record["rows"]:
            raise StoreError(f"{file}: {len(found['example'])} rows, but the manifest says {record['rows']}")
        if "y" in found and (found["y"] >= 0)[np.minimum(found["height"], found["width"]) < 1].any():
            raise StoreError(f"{file}: a patch in a grid of no height or width")
        return found

    def _example(self, record: dict[str, Any], number: int) -> dict[str, Any]:
        """What is known of an example of a shard."""
        first, examples = record["examples"][0], self._examples(record["shard"])
        if not 0 <= number - first < len(examples):
            raise StoreError(
                f"{self.store.examples_file(record['shard'])}: no example {number}; "
                f"it holds {first}..{first + len(examples) - 1}"
            )
        return examples[number - first]


def _box(at: dict[str, int], region: list[float]) -> tuple[int, int, int, int] | None:
    if at["y"] < 0:
        return None
    top, left, height, width = region
    y, x = top + height * at["y"] / at["height"], left + width * at["x"] / at["width"]
    bottom, right = y + height / at["height"], x + width / at["width"]
    # To whole pixels; a patch may be smaller than one.
    return round(y), round(x), max(round(bottom), round(y) + 1), max(round(right), round(x) + 1)
