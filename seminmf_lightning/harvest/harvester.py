"""Run a network on examples and turn the outputs and inputs of its layers into rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.checks import whole_number
from seminmf_lightning.harvest.adapters import Item
from seminmf_lightning.harvest.consistency import check_rows
from seminmf_lightning.harvest.inputs import Inputs
from seminmf_lightning.harvest.layers import Capture, Layer, LayerShapes, NetworkError, list_shapes
from seminmf_lightning.harvest.layout import Layout
from seminmf_lightning.harvest.models import Loaded
from seminmf_lightning.harvest.norm_filter import NormFilter, row_norms
from seminmf_lightning.harvest.probe import probe_layouts
from seminmf_lightning.harvest.reading import Read, first_items, pools_of, read_examples
from seminmf_lightning.harvest.row_selection import Rows, Selector


class Harvested(NamedTuple):
    """Rows of some examples, for each layer, in the order of the examples."""

    rows: dict[Layer, Rows]
    filtered: dict[Layer, int]
    """Number of rows that the norm filter dropped or clipped."""
    norm_sums: dict[Layer, float]
    """Sum of the Euclidean norms of the rows."""


class LayerBatch(NamedTuple):
    """Rows of one layer for one batch, their norms (m,), and how many the norm filter dropped or clipped."""

    rows: Rows
    norms: Tensor
    filtered: int


@dataclass
class Harvester:
    """Runs a network on examples in batches, up to the last of ``layers``."""

    loaded: Loaded
    inputs: Inputs
    layers: list[Layer]
    selector: Selector
    batch_size: int = 32
    """Items in one forward pass."""
    norm_filter: NormFilter = field(default_factory=NormFilter)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 0
    """Processes that read and preprocess examples beside the network."""
    dtype: torch.dtype | None = None
    """Type of the rows; None keeps that of the network."""
    check_rows: bool = True
    """Check first that rows depend neither on chance nor on their batch; see :mod:`.consistency`."""

    def __post_init__(self) -> None:
        whole_number("batch_size", self.batch_size, 1)
        whole_number("workers", self.workers, 0)
        self.widths: dict[Layer, int] = {}
        self.layouts: dict[str, Layout] = {}
        """Layout of each layer, for networks of images; a probe fills it before the first rows."""
        self._checked = False
        self.loaded.network.to(self.device)

    def read(self, examples: Iterable[int]) -> Iterator[Read]:
        """Read and preprocess examples, in the order given."""
        return read_examples(self.inputs, self.loaded.feed, examples, self.workers)

    def pools(self, reads: Iterable[Read]) -> Iterator[list[Read]]:
        """Group examples that are sorted by length and run together."""
        return pools_of(reads, self.batch_size * self.loaded.feed.pool)

    def few(self, reads: Iterable[Read], batches: int = 4) -> list[Read]:
        """Take the first items of each example, a few batches in all, for a trial run."""
        return first_items(list(reads), batches * self.batch_size)

    def harvest(self, pool: Sequence[Read]) -> Harvested | None:
        """Return the rows of a pool of examples; None if it has no items.

        Raises:
            ValueError: the network fails, or the output of a layer cannot be used; the message names both the
                layer and the example.
            MemoryError: a batch does not fit the device; the message has its size.
        """
        items = [item for read in pool for item in read.items]
        self.check(pool)
        longest_first = sorted(range(len(items)), key=lambda number: -items[number].tokens)
        parts: dict[Layer, list[Rows]] = {layer: [] for layer in self.layers}
        filtered, norm_sums = dict.fromkeys(self.layers, 0), dict.fromkeys(self.layers, 0.0)
        for start in range(0, len(items), self.batch_size):
            numbers = longest_first[start : start + self.batch_size]
            for layer, batch in self.run([items[number] for number in numbers]).items():
                parts[layer].append(batch.rows)
                filtered[layer] += batch.filtered
                norm_sums[layer] += float(batch.norms.double().sum())
        if not items:
            return None
        joined = {layer: Rows.join(batches) for layer, batches in parts.items()}
        if self.loaded.feed.pool > 1:
            joined = {layer: _in_order(rows) for layer, rows in joined.items()}
        return Harvested(joined, filtered, norm_sums)

    def check(self, pool: Sequence[Read]) -> None:
        """Check once that rows depend neither on chance nor on their batch.

        Rows are compared as the network gives them, before the norm filter and the conversion to a type.
        """
        items = [item for read in pool for item in read.items]
        if self._checked or not items or not self.check_rows:
            return
        self._checked = True
        stored = self.norm_filter, self.dtype
        self.norm_filter, self.dtype = NormFilter(), None
        try:
            check_rows(
                lambda batch: {layer: part.rows for layer, part in self.run(batch).items()}, items,
                self.inputs.identify, self.batch_size,
            )  # fmt: skip
        finally:
            self.norm_filter, self.dtype = stored

    def candidates(self, example: int = 0) -> tuple[list[LayerShapes], Exception | None]:
        """Return the shapes of each module for one example, and the error that ended the run, if any."""
        reads = self.read(range(example, len(self.inputs)))
        items = next((read.items[:1] for read in reads if read.items), None)
        if items is None:
            raise ValueError(f"none of the {len(self.inputs)} examples can be read")
        network, feed = self.loaded.network, self.loaded.feed
        return list_shapes(network, lambda: feed.call(network, items, self.device))

    def run(self, items: list[Item]) -> dict[Layer, LayerBatch]:
        """Run one batch and return the rows of each layer.  Raises as :meth:`harvest`."""
        feed, network = self.loaded.feed, self.loaded.network

        def keep(layer: Layer, output: Tensor) -> LayerBatch:
            rows = self.selector.rows(layer, output, items, feed, self.layouts.get(str(layer)))
            self._check_width(layer, rows, items)
            norms = row_norms(rows.values)
            if not (finite := norms.isfinite()).all():
                if self.loaded.not_loaded.missing:
                    self._check_weights(layer, output)
                raise ValueError(
                    f"layer {layer!s} has NaN, Inf or numbers too large to square for "
                    f"{self._name(rows, ~finite)}"
                )
            rows, norms, filtered = self.norm_filter.apply(layer, rows, norms)
            return LayerBatch(Rows(self._typed(layer, rows, norms), rows.origin), norms, filtered)

        try:
            if self.loaded.not_loaded.missing and not self.widths:
                Capture(network, self.layers, self._check_weights).run(
                    lambda: feed.call(network, items, self.device)
                )
            if not self.layouts and items[0].special is None:
                self.layouts = probe_layouts(
                    self.loaded, items[0], self.layers, self.selector.layout, self.device, self.batch_size
                )
            return Capture(network, self.layers, keep).run(lambda: feed.call(network, items, self.device))
        except torch.OutOfMemoryError as error:
            raise MemoryError(
                f"{self.device} has too little memory for batch_size={len(items)}; "
                f"try batch_size={max(1, len(items) // 2)}"
            ) from error
        except NetworkError as error:
            shapes = {name: tuple(value.shape) for name, value in items[0].inputs.items()}
            lacking = f" ({self.loaded.not_loaded})" if self.loaded.not_loaded.missing else ""
            raise ValueError(
                f"{error}{lacking}. It was called with {len(items)} items such as "
                f"{self.inputs.identify(items[0].example)} {shapes}: the preprocessing must fit the network "
                "(image size, model.max_length); list=true lists the layers that it reaches"
            ) from error

    def _check_weights(self, layer: Layer, output: Tensor) -> None:
        """Refuse a layer that depends on weights that the checkpoint lacks, which are NaN."""
        if output.isnan().any():
            raise ValueError(
                f"layer {layer!s} depends on weights that were not loaded, and would be random: "
                f"{self.loaded.not_loaded}. Choose another checkpoint, model.architecture or layer"
            )

    def _check_width(self, layer: Layer, rows: Rows, items: Sequence[Item]) -> None:
        width = self.widths.setdefault(layer, rows.values.shape[1])
        if rows.values.shape[1] != width:
            raise ValueError(
                f"layer {layer!s} has {rows.values.shape[1]} features for "
                f"{self.inputs.identify(items[0].example)}, but had {width} before: a layer's width must not "
                "depend on the example"
            )

    def _typed(self, layer: Layer, rows: Rows, norms: Tensor) -> Tensor:
        """Convert rows to the type they are stored in; refuse numbers beyond its range."""
        if self.dtype is None:
            return rows.values
        largest = torch.finfo(self.dtype).max
        over = norms > largest  # cheap test first: no entry exceeds the norm of its row
        if over.any() and (over := rows.values.abs().amax(dim=1) > largest).any():
            raise ValueError(
                f"layer {layer!s}: {float(rows.values.abs().max()):,.0f} is beyond {self.dtype} "
                f"({largest:,.0f}) for {self._name(rows, over)}: set dtype=bfloat16 or dtype=float32, or "
                "norm_filter=drop"
            )
        return rows.values.to(self.dtype)

    def _name(self, rows: Rows, mask: Tensor) -> str:
        """Name the origin of the first row in ``mask``."""
        row = int(mask.nonzero()[0])
        example, position = rows.origin["example"][row], rows.origin["position"][row]
        return f"{self.inputs.identify(int(example))}, position {position}"


def _in_order(rows: Rows) -> Rows:
    """Sort rows by example, window and position."""
    return rows.take(np.lexsort((rows.origin["position"], rows.origin["window"], rows.origin["example"])))
