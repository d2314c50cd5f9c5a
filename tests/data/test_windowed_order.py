"""Batches of rows that are fetched chunk by chunk."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from s3_server import streams

from seminmf_lightning.data import TensorRows
from seminmf_lightning.data.loader import BatchStream
from seminmf_lightning.data.sources.base import Chunking, FetchPlan
from seminmf_lightning.data.splits import RowSet, scattered_stretches


class Chunked(TensorRows):
    """Rows in memory that behave as if they were fetched: only those that were announced can be read."""

    rows_a_chunk, window = 10, 40

    @property
    def chunking(self) -> Chunking:
        return Chunking(self.rows_a_chunk, self.window)

    def prefetch(self, plan: FetchPlan) -> None:
        self.now = {row for ranges in plan.now for start, stop in ranges for row in range(start, stop)}
        self.fetched = getattr(self, "fetched", set()) | set(plan.now)

    def read(self, rows: np.ndarray) -> torch.Tensor:
        assert set(rows.tolist()) <= self.now
        return super().read(rows)

    def read_range(self, start: int, stop: int) -> torch.Tensor:
        assert set(range(start, stop)) <= self.now
        return super().read_range(start, stop)


@given(
    st.integers(1, 300), st.integers(1, 90), st.integers(1, 4), st.booleans(), st.integers(1, 60),
    st.integers(1, 200), st.integers(1, 40), st.integers(1, 40), st.integers(0, 3), st.booleans(),
)  # fmt: skip
def test_every_process_count_sees_the_same_windowed_batches(
    n: int,
    size: int,
    world: int,
    shuffle: bool,
    chunk: int,
    window: int,
    minibatch: int,
    block: int,
    epoch: int,
    gaps: bool,
) -> None:
    rows = RowSet.where(np.arange(n) % 7 != 3) if gaps and n > 4 else RowSet.all(n)

    def batches(rank: int, world: int) -> tuple[list[Any], set[Any]]:
        source = Chunked(torch.arange(float(n))[:, None])
        source.rows_a_chunk, source.window = chunk, window
        stream = BatchStream(
            source, rows, size, shuffle=shuffle, seed=1, rank=rank, world=world, rows_per_update=minibatch,
            block=block, any_order=True,
        )  # fmt: skip
        stream.set_epoch(epoch)
        return list(stream), source.fetched

    one, everything = batches(0, 1)
    parts = [batches(rank, world) for rank in range(world)]
    assert {len(actual) for actual, _ in parts} == {len(one)}
    assert sum(len(fetched) for _, fetched in parts) == len(everything)  # nothing is fetched twice
    for whole, shares in zip(one, zip(*(actual for actual, _ in parts), strict=True), strict=True):
        assert torch.equal(whole[0][:, 0].long(), whole[1])
        assert sorted(whole[1].tolist()) == sorted(torch.cat([share[1] for share in shares]).tolist())
        assert torch.equal(whole[2], sum(share[2] for share in shares))
        assert int(whole[2].sum()) == len(whole[0])
        assert (whole[2][:-1] == min(minibatch, size)).all()
    assert sorted(torch.cat([batch[1] for batch in one]).tolist()) == rows.rows(np.arange(len(rows))).tolist()


def test_windows_are_mixed_anew_in_each_pass() -> None:
    source = Chunked(torch.arange(400.0)[:, None])
    (stream,) = streams(source, 1, shuffle=True)
    first, second = ([batch[1] for batch in stream] for _ in range(2))
    assert not torch.equal(torch.cat(first), torch.cat(second))
    assert len(np.unique(first[0] // 10)) >= 4  # a batch has rows of all chunks of a window


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 64))
def test_stretches_of_a_sample_are_disjoint(n: int, count: int, longest: int) -> None:
    actual = np.concatenate([np.arange(*one) for one in scattered_stretches(n, count, 64, longest, 0)])
    assert len(np.unique(actual)) == len(actual)
    assert actual.max() < n
    assert len(actual) == n if count >= n else count / 2 <= len(actual) <= count + 64
