"""Sums over rows against dense products."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seminmf_lightning.core import sparse_codes
from seminmf_lightning.core import sums as statistics
from seminmf_lightning.core.sparse_codes import SparseCodes
from seminmf_lightning.core.sums import CodeStatistics, SecondMoment


@settings(max_examples=40)
@given(st.integers(0, 30), st.integers(1, 40), st.floats(0, 1), st.integers(0, 99))
def test_products_from_nonzeros_are_the_dense_ones(rows: int, concepts: int, share: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    Z = torch.randn(rows, concepts, generator=generator) * (
        torch.rand(rows, concepts, generator=generator) < share
    )
    A, D = torch.randn(rows, 7, generator=generator), torch.rand(concepts, 7, generator=generator)
    sparse, dense = CodeStatistics.empty(concepts, 7), CodeStatistics.empty(concepts, 7)
    for sums, work in ((sparse, 0), (dense, 10**9)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sparse_codes, "PAIR_WORK", work)
            sums.add_rows_(A, SparseCodes.of(Z), D)
            sums.add_rows_(A, SparseCodes.of(Z), D)
    for name, value in dense.tensors().items():
        tolerance = 1e-5 if name == "squared_error" else 1e-12  # float32 residuals
        assert torch.allclose(sparse.tensors()[name], value, rtol=tolerance, atol=tolerance), name
    assert torch.allclose(dense.gram, 2 * Z.double().T @ Z.double())


@pytest.mark.parametrize("exponent", [-12, -3, 0])
def test_products_in_float64_are_rounded_to_the_grid(exponent: int) -> None:
    A = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grid, moment = 2.0**exponent, SecondMoment.empty(6)
    moment.add_rows_(A, factor=0.5, grid=grid)
    exact = 0.25 * A.T @ A
    assert torch.equal((moment.gram / grid).round() * grid, moment.gram)
    assert (moment.gram - exact).abs().max() <= grid / 2
    assert (moment.gram != exact).any()
    assert float(moment.rows) == 50


@pytest.mark.parametrize("features", [1, statistics.NARROW, statistics.NARROW + 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_part_below_the_diagonal_is_a_copy(features: int, dtype: torch.dtype) -> None:
    A = torch.randn(40, features, generator=torch.Generator().manual_seed(0), dtype=dtype)
    moment = SecondMoment.empty(features)
    for rows in (A[:25], A[25:]):
        moment.add_rows_(rows)
    assert torch.allclose(moment.gram, A.double().T @ A.double(), rtol=1e-4, atol=1e-4)
    assert torch.allclose(moment.gram, moment.gram.T, rtol=0, atol=1e-5)


@pytest.mark.parametrize("features", [4, statistics.NARROW])
def test_rows_beyond_the_range_are_refused_and_nothing_is_added(features: int) -> None:
    A = torch.ones(3, features)
    moment = SecondMoment.empty(features)
    moment.add_rows_(A)
    for fault in (float("nan"), float("inf")):
        with pytest.raises(FloatingPointError, match="not finite"):
            moment.add_rows_(A * fault)
    assert torch.equal(moment.gram, torch.full((features, features), 3.0, dtype=torch.float64))
    assert float(moment.rows) == 3


def test_sums_travel_as_one_vector_and_fade() -> None:
    one, other = SecondMoment.empty(3), SecondMoment.empty(3)
    one.add_rows_(torch.eye(3))
    other.set_flat_(2 * one.flat())
    other.add_(one, keep=0.25)
    assert torch.equal(other.flat(), 1.5 * one.flat())
    other.zero_()
    assert not other.flat().any()
    other.load_(one.tensors())
    assert torch.equal(other.flat(), one.flat())
