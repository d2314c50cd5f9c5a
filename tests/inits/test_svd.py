"""The guarantees of Gillis & Kumar."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seminmf_lightning.core.constraints import CONSTRAINTS
from seminmf_lightning.core.linalg import row_space
from seminmf_lightning.core.objective import eckart_young_bound, squared_error
from seminmf_lightning.inits.svd import SVD, positive_combination


@given(st.integers(0, 1000), st.integers(2, 6), st.booleans())
@settings(max_examples=30)
def test_error_of_rank_k_on_nonnegative_data_else_of_rank_k_minus_1(
    seed: int, k: int, nonnegative: bool
) -> None:
    A = torch.randn(40, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    A = A.abs() if nonnegative else A
    C = A.T @ A
    D = SVD().refine(C, k, CONSTRAINTS["dictionary"])
    error = squared_error(C, row_space(D))
    assert (D >= 0).all()
    assert error <= eckart_young_bound(C, k if nonnegative else k - 1) * (1 + 1e-6)


def test_a_positive_combination_is_found_or_there_is_none() -> None:
    V = torch.tensor([[1.0, -1.0, 0.5], [0.0, 2.0, 0.5]], dtype=torch.float64)
    found = positive_combination(V)
    assert found is not None and (found > 0).all()
    assert positive_combination(torch.tensor([[1.0, -1.0]], dtype=torch.float64)) is None
