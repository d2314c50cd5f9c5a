"""Rows are the chosen positions of each item; padding never becomes a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from harvests import CPU, all_rows, text_recipe
from hypothesis import given
from hypothesis import strategies as st

from seminmf_lightning.harvest.adapters import Item, TensorFeed
from seminmf_lightning.harvest.layers import Layer
from seminmf_lightning.harvest.row_selection import Selector

FEED = TensorFeed()


@st.composite
def sequences(draw: Any) -> tuple[torch.Tensor, list[Item]]:
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    items = []
    for number, length in enumerate(lengths):
        special = torch.zeros(length, dtype=torch.bool)
        special[0] = True
        spans = torch.stack([torch.arange(length), torch.arange(length) + 1], dim=1).int()
        items.append(Item(number, number % 2, {}, special, spans))
    output = torch.arange(float(len(lengths) * max(lengths) * 2)).reshape(len(lengths), max(lengths), 2)
    return output, items


@given(sequences(), st.sampled_from(["all", "cls", "no_special", "mean", "random"]))
def test_padding_never_becomes_a_row(problem: tuple[torch.Tensor, list[Item]], tokens: str) -> None:
    output, items = problem
    rows = Selector(tokens, 2 if tokens == "random" else None).rows(Layer("x"), output, items, FEED)
    expected, positions = [], []
    for number, item in enumerate(items):  # the naive way
        allowed = (
            list(range(item.tokens))
            if tokens == "all"
            else [0]
            if tokens == "cls"
            else list(range(1, item.tokens))
        )
        if tokens == "mean":
            expected += [output[number, allowed].mean(0)] if allowed else []
            continue
        positions += [(number, position) for position in allowed]
        expected += [output[number, position] for position in allowed]
    if tokens == "random":
        actual = list(zip(rows.origin["example"].tolist(), rows.origin["position"].tolist(), strict=True))
        assert set(actual) <= set(positions) and len(set(actual)) == len(actual)
        assert len(actual) == sum(min(2, item.tokens - 1) for item in items)
        assert all(
            torch.equal(value, output[position]) for value, position in zip(rows.values, actual, strict=True)
        )
        return
    assert torch.allclose(rows.values, torch.stack(expected) if expected else torch.empty(0, 2))
    if tokens != "mean":
        assert rows.origin["position"].tolist() == [position for _, position in positions]
        starts = [-1 if position == 0 else position for _, position in positions]
        assert rows.origin["start"].tolist() == starts


def test_maps_with_channels_last_are_seen_by_their_shape() -> None:
    items = [Item(number, 0, {"picture": torch.zeros(3, 32, 48)}) for number in range(2)]
    first = torch.arange(2.0 * 5 * 4 * 6).reshape(2, 5, 4, 6)  # (n, c, h, w)
    feed = TensorFeed(images=True)
    for output in (first, first.permute(0, 2, 3, 1)):
        rows = Selector("all").rows(Layer("x"), output, items, feed)
        assert torch.equal(rows.values, first.permute(0, 2, 3, 1).reshape(-1, 5))
        assert rows.origin["y"][:7].tolist() == [0] * 6 + [1]
    square = torch.arange(2.0 * 64).reshape(2, 4, 4, 4)  # its shape does not tell
    items = [Item(number, 0, {"picture": torch.zeros(3, 32, 32)}) for number in range(2)]
    for usual, expected in ((False, square.permute(0, 2, 3, 1)), (True, square)):
        feed.channels_last = usual
        assert torch.equal(
            Selector("all").rows(Layer("x"), square, items, feed).values, expected.reshape(-1, 4)
        )


def test_sequences_that_are_no_pictures_lose_no_position() -> None:
    for t in (2, 5, 10, 17):
        items = [Item(number, 0, {"tensor": torch.zeros(t, 3)}) for number in range(2)]
        output = torch.randn(2, t, 4)
        assert torch.equal(Selector().rows(Layer("x"), output, items, FEED).values, output.reshape(-1, 4))
        assert len(Selector().rows(Layer("x"), output, items, TensorFeed(1)).values) == 2 * (t - 1)


def test_random_tokens_do_not_depend_on_the_batch(bert: Path, corpus: Path) -> None:
    one, other = (
        all_rows(text_recipe(bert, corpus, tokens="random", number=3, batch_size=size).harvester(CPU))[
            "encoder.layer.1"
        ]
        for size in (1, 7)
    )
    assert np.array_equal(one.origin["position"], other.origin["position"])
    assert (one.values - other.values).abs().max() < 1e-6
