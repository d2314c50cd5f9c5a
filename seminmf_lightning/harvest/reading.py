"""Read and preprocess examples, in this process or in workers beside the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from seminmf_lightning.harvest.adapters import Feed, Item
from seminmf_lightning.harvest.inputs import Inputs, Unreadable

PREFETCHED = 4
"""Examples that a worker reads ahead."""


class Read(NamedTuple):
    """One example as read: its items and its record, or the reason why it is skipped."""

    example: int
    name: str
    items: list[Item]
    record: dict[str, Any]
    skipped: str | None
    part: int = 0
    """Number of this part, where the items of one example are run in several parts."""


def read_examples(inputs: Inputs, feed: Feed, examples: Iterable[int], workers: int) -> Iterator[Read]:
    """Yield the examples in the order given, each ready for the network or with the reason why it is not."""
    return iter(DataLoader(
        _Examples(inputs, feed), sampler=examples, batch_size=None, num_workers=workers,
        collate_fn=_unchanged, prefetch_factor=PREFETCHED if workers else None,
    ))  # fmt: skip


def pools_of(reads: Iterable[Read], items_per_pool: int) -> Iterator[list[Read]]:
    """Group successive examples into pools of about ``items_per_pool`` items; longer examples are split.

    The items of one pool are later sorted by length, which saves padding.
    """
    pool: list[Read] = []
    size = 0
    for read in reads:
        for start in range(0, max(1, len(read.items)), items_per_pool):
            items = read.items[start : start + items_per_pool]
            pool.append(read._replace(items=items, part=start // items_per_pool))
            size += len(items)
            if size >= items_per_pool:
                yield pool
                pool, size = [], 0
    if pool:
        yield pool


def first_items(reads: Sequence[Read], items: int) -> list[Read]:
    """Keep the first items of each readable example, at most ``items`` in all, for a trial run."""
    readable = [read for read in reads if read.items]
    each = max(1, items // max(1, len(readable)))
    return [read._replace(items=read.items[:each]) for read in readable][:items]


class _Examples(Dataset[Read]):
    def __init__(self, inputs: Inputs, feed: Feed) -> None:
        self.inputs, self.feed = inputs, feed

    def __getitem__(self, example: int) -> Read:
        name = self.inputs.identify(example)
        try:
            content = self.inputs.read(example)
            return Read(example, name, self.feed.items(example, content), self.feed.record(content), None)
        except (ImportError, MemoryError, torch.OutOfMemoryError):
            raise
        except Unreadable as error:
            reason = str(error)
        except Exception as error:  # tokenizers and preprocessing of users raise anything
            reason = f"{type(error).__name__}: {error}"
        reason = reason if name in reason else f"{name}: {reason}"
        return Read(example, name, [], {}, reason.encode("utf-8", "backslashreplace").decode())


def _unchanged(read: Any) -> Any:
    return read
