"""Histograms and quantiles of codes equal naive references."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from seminmf_lightning.explain.code_sample import histogram, quantile_rows

CODES = st.lists(st.one_of(st.just(0.0), st.floats(-1e3, 1e3, width=32)), min_size=1, max_size=50)


@given(CODES)
def test_a_histogram_counts_every_nonzero_code_in_bins_of_one_sign(codes: list[float]) -> None:
    counted = histogram(torch.tensor(codes), bins=7)
    used = np.array([code for code in codes if code])
    if not len(used):
        assert counted is None
        return
    assert counted is not None and len(counted.counts) == 7
    edges = np.linspace(counted.low, counted.high, 8)
    assert np.abs(edges).min() <= 1e-9 * max(abs(counted.low), counted.high)  # 0 is an edge
    above = sum(
        count for edge, count in zip(edges[:-1] + np.diff(edges) / 2, counted.counts, strict=True) if edge > 0
    )
    assert sum(counted.counts) == len(used) and above == (used > 0).sum()


@given(CODES, st.sets(st.integers(0, 10)))
def test_rows_at_quantiles(codes: list[float], shown: set[int]) -> None:
    row_ids = torch.arange(len(codes)) * 3
    found = quantile_rows(torch.tensor(codes), row_ids, {3 * row for row in shown}, (0.9, 0.5, 0.1))
    used = sorted(code for code in codes if code > 0)
    assert len({one.row for one in found}) == len(found)
    for one in found:
        assert one.row // 3 not in shown and codes[one.row // 3] == one.value
        assert one.value == used[round(one.quantile * (len(used) - 1))]
    if used and not shown:
        assert found[0].quantile == 0.9
