"""Check that the rows of an example depend neither on chance nor on the rest of its batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from seminmf_lightning.harvest.adapters import Item
from seminmf_lightning.harvest.layers import Layer, NetworkError
from seminmf_lightning.harvest.row_selection import Rows

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-2, torch.float16: 0.05, torch.bfloat16: 0.25}
"""Largest difference of a row, relative to its norm, that rounding in another batch shape explains."""
REPEATED = 8
"""Items that are run twice: several, so that rare randomness shows too."""
PROBE_WINDOW = 2**20
"""Window number of the checked item, to tell its rows from those of the other item."""


def check_rows(
    run: Callable[[list[Item]], dict[Layer, Rows]],
    items: Sequence[Item],
    name: Callable[[int], str],
    batch_size: int,
) -> None:
    """Run a batch twice, and one item alone and then padded beside a longer one (for images: any other).

    Args:
        run: returns the rows of each layer for a batch of items.
        name: names an example.

    Raises:
        ValueError: a layer gives other rows; the message names it, the largest difference and what to do.
    """
    items = _alike(items)
    item, other = _pair(items)
    batch = sorted(items[: min(batch_size, REPEATED)], key=lambda one: -one.tokens)
    try:
        first, second = run(batch), run(batch)
        alone, together = run([item]), run([other, item]) if batch_size > 1 else run([item])
    except MemoryError:
        return  # the run itself reports it, with the batch that failed
    except ValueError as error:
        if isinstance(error.__cause__, NetworkError):
            return
        raise  # with n items of n tokens each, only these runs distinguish (t, n, c) from (n, t, c)
    example = name(item.example)
    for layer, rows in first.items():
        tolerance = TOLERANCE.get(rows.values.dtype, 1e-2)
        if (difference := _difference(rows, second[layer])) > tolerance:
            raise ValueError(
                f"layer {layer!s} gives other rows each time {name(batch[0].example)} is run (largest "
                f"difference {difference:.2g} of a row's norm): the network is random in evaluation mode, "
                "for example because a dropout is always on. Make it deterministic, or set check_rows=false "
                "to harvest such rows knowingly"
            )
        difference = _difference(_of(alone[layer], item), _of(together[layer], item))
        if difference > tolerance:
            raise ValueError(
                f"layer {layer!s} gives other rows for {example} alone than in a batch with "
                f"{name(other.example)} (largest difference {difference:.2g} of a row's norm): the network "
                "ignores the attention mask, or normalises over its batch. Set batch_size=1 "
                "(network_batch_size=1 in training), or check_rows=false to harvest such rows knowingly"
            )


def _alike(items: Sequence[Item]) -> list[Item]:
    """Keep the items that can share a batch with the first one."""
    if items[0].tokens:
        return list(items)
    shapes = {key: value.shape for key, value in items[0].inputs.items()}
    return [one for one in items if {key: value.shape for key, value in one.inputs.items()} == shapes]


def _pair(items: Sequence[Item]) -> tuple[Item, Item]:
    """Choose an item to check and one to run beside it: a longer one if there are tokens."""
    by_length = sorted(items, key=lambda item: item.tokens)
    item, other = by_length[0], by_length[-1]
    if item.tokens == other.tokens > 1:  # cut one in half
        half = item.tokens - item.tokens // 2
        assert item.special is not None and item.spans is not None
        inputs = {key: value[:half] for key, value in item.inputs.items()}
        item = replace(item, inputs=inputs, special=item.special[:half], spans=item.spans[:half])
    return replace(item, window=PROBE_WINDOW), other


def _of(rows: Rows, item: Item) -> Rows:
    mine = (rows.origin["example"] == item.example) & (rows.origin["window"] == item.window)
    return rows.take(mine.nonzero()[0])


def _difference(rows: Rows, others: Rows) -> float:
    """Return the largest difference of a row, relative to its norm (at least the median norm of the rows)."""
    if rows.values.shape != others.values.shape:
        return float("inf")
    if not len(rows.values):
        return 0.0
    norms = rows.values.double().norm(dim=1)
    scale = norms.clamp(min=max(float(norms.median()), torch.finfo(torch.float32).tiny))
    return float(((rows.values.double() - others.values.double()).norm(dim=1) / scale).max())
