"""Sums over rows against dense products."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seminmf_lightning.core import sums as statistics
from seminmf_lightning.core.sums import CodeStatistics


@settings(deadline=None, max_examples=40)
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
            patch.setattr(statistics, "PAIR_WORK", work)
            sums.add_rows_(A, Z, D)
            sums.add_rows_(A, Z, D)
    for name, value in dense.tensors().items():
        assert torch.allclose(sparse.tensors()[name], value, rtol=1e-12, atol=1e-12), name
    assert torch.allclose(dense.gram, 2 * Z.double().T @ Z.double())
