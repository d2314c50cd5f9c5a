"""A network shown examples, its layers turned to rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from seminmf_lightning.core.checks import one_of, real_number, whole_number
from seminmf_lightning.harvest.adapters import Feed, Item
from seminmf_lightning.harvest.inputs import Inputs, Unreadable
from seminmf_lightning.harvest.layers import Capture, Layer, LayerOutputs, list_outputs
from seminmf_lightning.harvest.models import Loaded
from seminmf_lightning.harvest.row_selection import Rows, Selector


class Read(NamedTuple):
    """One example as read: its items and record, or why there are none."""

    example: int
    name: str
    items: list[Item]
    record: dict[str, Any]
    skipped: str | None
    part: int = 0
    """Which part of its items these are, where they are many."""


@dataclass(frozen=True)
class NormFilter:
    """What to do with rows whose norm is far above the median, such as the first token of many language
    models.

    ``limits`` holds the norm of each layer above which rows are dropped, or scaled down to it.
    """

    name: str = "none"
    factor: float = 10.0
    """Times the median norm of a sample."""
    limits: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of("norm_filter", self.name, ("none", "drop", "clip"))
        real_number("norm_factor", self.factor, 1, exclusive=True)

    def apply(self, layer: Layer, rows: Rows, norms: Tensor) -> tuple[Rows, Tensor, int]:
        """The rows that are left, their norms, and how many were dropped or clipped."""
        limit = self.limits.get(str(layer))
        if self.name == "none" or limit is None:
            return rows, norms, 0
        over = norms > limit
        count = int(over.sum())
        if not count:
            return rows, norms, 0
        if self.name == "drop":
            return rows.take(np.flatnonzero(~over.cpu().numpy())), norms[~over], count
        factors = torch.where(over, limit / norms, torch.ones_like(norms))
        return (
            Rows((rows.values.float() * factors[:, None]).to(rows.values.dtype), rows.origin),
            norms.clamp(max=limit),
            count,
        )


class Harvested(NamedTuple):
    """Some examples' rows of each layer, in order of example."""

    rows: dict[Layer, Rows]
    filtered: dict[Layer, int]
    """How many rows the norm filter touched."""
    norm_sums: dict[Layer, float]
    """Of the Euclidean norms of the rows."""


@dataclass
class Harvester:
    """Runs ``loaded`` over examples of ``inputs`` in batches of ``batch_size`` items, as far as the last of
    ``layers``."""

    loaded: Loaded
    inputs: Inputs
    layers: list[Layer]
    selector: Selector
    batch_size: int = 32
    norm_filter: NormFilter = field(default_factory=NormFilter)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int = 0
    """Processes that read and preprocess examples beside the network."""
    dtype: torch.dtype | None = None
    """Of the rows; None: the network's."""

    def __post_init__(self) -> None:
        whole_number("batch_size", self.batch_size, 1)
        whole_number("workers", self.workers, 0)
        self.widths: dict[Layer, int] = {}
        self.loaded.network.to(self.device)

    def read(self, examples: Iterable[int]) -> Iterator[Read]:
        """Examples as the network will be shown them, in the order given."""
        dataset = _Examples(self.inputs, self.loaded.feed)
        return iter(
            DataLoader(
                dataset, sampler=_Order(examples), batch_size=None, num_workers=self.workers, collate_fn=_same,
                prefetch_factor=4 if self.workers else None,
            )
        )  # fmt: skip

    def pools(self, reads: Iterable[Read]) -> Iterator[list[Read]]:
        """Successive examples that are sorted and run together: some batches of items each, an example of
        more in parts."""
        pool: list[Read] = []
        wanted, found = self.batch_size * self.loaded.feed.pool, 0
        for read in reads:
            for start in range(0, max(1, len(read.items)), wanted):
                part = read._replace(items=read.items[start : start + wanted], part=start // wanted)
                pool.append(part)
                found += len(part.items)
                if found >= wanted:
                    yield pool
                    pool, found = [], 0
        if pool:
            yield pool

    def few(self, reads: Iterable[Read], batches: int = 4) -> list[Read]:
        """Of each example its first items, a few batches in all: what a trial pass is made with."""
        reads = [read for read in reads if read.items]
        each = max(1, batches * self.batch_size // max(1, len(reads)))
        return [read._replace(items=read.items[:each]) for read in reads][: batches * self.batch_size]

    def harvest(self, pool: Sequence[Read]) -> Harvested | None:
        """Rows of a pool of examples; None if no example of it gives any.

        Raises:
            ValueError: a layer's output cannot be used; the message names the layer and the example.
            MemoryError: the device has too little memory for a batch; the message has its size.
        """
        items = [item for read in pool for item in read.items]
        by_length = sorted(range(len(items)), key=lambda number: -items[number].tokens)
        parts: dict[Layer, list[Rows]] = {layer: [] for layer in self.layers}
        filtered, norm_sums = dict.fromkeys(self.layers, 0), dict.fromkeys(self.layers, 0.0)
        for start in range(0, len(items), self.batch_size):
            batch = [items[number] for number in by_length[start : start + self.batch_size]]
            for layer, (rows, norms, touched) in self._run(batch).items():
                parts[layer].append(rows)
                filtered[layer] += touched
                norm_sums[layer] += float(norms.double().sum())
        if not items:
            return None
        joined = {layer: Rows.join(found) for layer, found in parts.items()}
        if self.loaded.feed.pool > 1:
            joined = {layer: _in_order(rows) for layer, rows in joined.items()}
        return Harvested(joined, filtered, norm_sums)

    def candidates(self, example: int = 0) -> tuple[list[LayerOutputs], Exception | None]:
        """What each module of the network returns for one example, and the error that ended the pass early,
        if one did."""
        items = self._first_items(example)
        return list_outputs(
            self.loaded.network, lambda: self.loaded.feed.call(self.loaded.network, items, self.device)
        )

    def _first_items(self, example: int) -> list[Item]:
        for read in self.read(range(example, len(self.inputs))):
            if read.items:
                return read.items[:1]
        raise ValueError(f"none of the {len(self.inputs)} examples can be read")

    def _run(self, items: list[Item]) -> dict[Layer, tuple[Rows, Tensor, int]]:
        """For each layer the rows of a batch, their norms, and how many the norm filter touched."""
        feed, network = self.loaded.feed, self.loaded.network

        def keep(layer: Layer, output: Tensor) -> tuple[Rows, Tensor, int]:
            rows = self.selector.rows(layer, output, items, feed)
            width = self.widths.setdefault(layer, rows.values.shape[1])
            if rows.values.shape[1] != width:
                raise ValueError(
                    f"layer {layer!s} has {rows.values.shape[1]} features for {self.inputs.identify(items[0].example)}, "
                    f"but had {width} before: a layer's width must not depend on the example"
                )
            norms = row_norms(rows.values)
            if not norms.isfinite().all():
                raise ValueError(
                    f"layer {layer!s} holds NaN, Inf or numbers too large to square for {self._name(rows, ~norms.isfinite())}"
                )
            rows, norms, touched = self.norm_filter.apply(layer, rows, norms)
            return Rows(self._typed(layer, rows, norms), rows.origin), norms, touched

        try:
            return Capture(network, self.layers, keep).run(lambda: feed.call(network, items, self.device))
        except (ValueError, ModuleNotFoundError):
            raise
        except torch.OutOfMemoryError as error:
            raise MemoryError(
                f"{self.device} has too little memory for batch_size={len(items)}; try batch_size={max(1, len(items) // 2)}"
            ) from error
        except (RuntimeError, TypeError, IndexError) as error:
            shapes = {name: tuple(value.shape) for name, value in items[0].inputs.items()}
            raise ValueError(
                f"the network cannot be called with {len(items)} items such as {self.inputs.identify(items[0].example)} "
                f"({shapes}): {error}"
            ) from error

    def _typed(self, layer: Layer, rows: Rows, norms: Tensor) -> Tensor:
        if self.dtype is None:
            return rows.values
        largest = torch.finfo(self.dtype).max
        over = norms > largest  # a number is no larger than its row's norm
        if over.any() and (over := rows.values.abs().amax(dim=1) > largest).any():
            raise ValueError(
                f"layer {layer!s}: {float(rows.values.abs().max()):,.0f} is beyond {self.dtype} ({largest:,.0f}) for "
                f"{self._name(rows, over)}: set dtype=bfloat16 or dtype=float32, or norm_filter=drop"
            )
        return rows.values.to(self.dtype)

    def _name(self, rows: Rows, mask: Tensor) -> str:
        """Where the first of the rows in ``mask`` comes from."""
        row = int(mask.nonzero()[0])
        return f"{self.inputs.identify(int(rows.origin['example'][row]))}, position {rows.origin['position'][row]}"


def row_norms(values: Tensor) -> Tensor:
    """Euclidean norms (m,) of rows (m, c), float32."""
    return values.float().norm(dim=1)


def norm_limits(rows: Mapping[Layer, Rows], factor: float) -> dict[str, float]:
    """For each layer ``factor`` times the median norm of the rows that are not zero; none for a layer of
    zeros."""
    limits = {}
    for layer, found in rows.items():
        norms = row_norms(found.values)
        if (norms > 0).any():
            limits[str(layer)] = factor * float(norms[norms > 0].double().median())
    return limits


def _in_order(rows: Rows) -> Rows:
    """By example, window and position."""
    order = np.lexsort((rows.origin["position"], rows.origin["window"], rows.origin["example"]))
    return rows.take(order)


class _Examples(Dataset[Read]):
    def __init__(self, inputs: Inputs, feed: Feed) -> None:
        self.inputs, self.feed = inputs, feed

    def __getitem__(self, example: int) -> Read:
        name = self.inputs.identify(example)
        try:
            content = self.inputs.read(example)
            return Read(example, name, self.feed.items(example, content), self.feed.record(content), None)
        except Unreadable as error:
            return Read(example, name, [], {}, str(error))


class _Order(Sampler[int]):
    def __init__(self, examples: Iterable[int]) -> None:
        self.examples = examples

    def __iter__(self) -> Iterator[int]:
        return iter(self.examples)


def _same(read: Any) -> Any:
    return read
