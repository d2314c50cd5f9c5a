"""Batches cover the training rows once; bad rows and arguments are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seminmf_lightning.data import ActivationDataModule, TensorRows
from seminmf_lightning.data.loader import BatchStream
from seminmf_lightning.data.splits import RowSet, hold_out, shuffled


@given(st.integers(1, 500), st.integers(0, 5), st.integers(0, 5))
def test_shuffled_is_a_permutation(n: int, seed: int, epoch: int) -> None:
    assert sorted(shuffled(np.arange(n), n, seed, epoch)) == list(range(n))


@given(st.integers(2, 400), st.floats(0.01, 0.9), st.integers(0, 5), st.booleans())
def test_held_out_rows_are_disjoint_and_complete(n: int, fraction: float, seed: int, grouped: bool) -> None:
    groups = np.arange(n) // 3 if grouped else None
    try:
        train, held = hold_out(n, fraction, seed, groups)
    except ValueError:
        return
    rows = [part.rows(np.arange(len(part))) for part in (train, held)]
    assert sorted(np.concatenate(rows)) == list(range(n))
    assert len(held) >= 1
    if grouped:
        assert not set(groups[rows[0]]) & set(groups[rows[1]])


@given(st.integers(1, 90), st.integers(1, 40), st.integers(1, 4), st.booleans())
def test_every_process_count_sees_the_same_global_batches(
    n: int, size: int, world: int, shuffle: bool
) -> None:
    source = TensorRows(torch.arange(float(n))[:, None])
    one = list(BatchStream(source, RowSet.all(n), size, shuffle=shuffle, seed=1))
    ranks = [
        list(BatchStream(source, RowSet.all(n), size, shuffle=shuffle, seed=1, rank=r, world=world))
        for r in range(world)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    for whole, parts in zip(one, zip(*ranks, strict=True), strict=True):
        assert torch.equal(whole[0], torch.cat([part[0] for part in parts]))
        assert torch.equal(whole[0][:, 0].long(), whole[1])
    assert sorted(torch.cat([batch[1] for batch in one]).tolist()) == list(range(n))


def test_a_stream_resumes_where_it_was() -> None:
    def stream() -> BatchStream:
        return BatchStream(TensorRows(torch.arange(50.0)[:, None]), RowSet.all(50), 8, shuffle=True, seed=3)

    whole = stream()
    batches = list(whole) + list(whole)
    resumed = stream()
    iterator = iter(resumed)
    for _ in range(3):
        next(iterator)
    other = stream()
    other.load_state_dict(resumed.state_dict())
    rest = list(other) + list(other)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(batches[3:], rest, strict=True))


def test_a_row_that_is_not_finite_is_named(tmp_path: Path) -> None:
    array = np.ones((40, 3), dtype=np.float32)
    array[17, 1] = np.nan
    np.save(tmp_path / "a.npy", array)
    data = ActivationDataModule(str(tmp_path / "a.npy"), val_fraction=0)
    data.setup()
    with pytest.raises(ValueError, match=r"a\.npy, row 17: feature 1 is nan"):
        data.sample()


def test_arguments_are_checked() -> None:
    rows = torch.ones(4, 2)
    with pytest.raises(ValueError, match=r"data\.val_fraction"):
        ActivationDataModule(rows, val_fraction=1.0)
    with pytest.raises(TypeError, match=r"data\.batch_size"):
        ActivationDataModule(rows, batch_size="many")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ActivationDataModule(rows, batchsize=3)  # type: ignore[call-arg]
