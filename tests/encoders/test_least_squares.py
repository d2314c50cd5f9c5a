"""Least-squares codes against numpy's pseudo-inverse."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from small_problems import DEFECTS, rows_and_atoms

from seminmf_lightning.encoders.least_squares import LeastSquares


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 12), st.sampled_from(DEFECTS))
@settings(max_examples=40)
def test_codes_are_optimal_and_of_least_norm(seed: int, k: int, d: int, defect: str) -> None:
    A, D = rows_and_atoms(seed, k, d, defect)
    Z = LeastSquares().precise(D)(A)
    naive = A.numpy() @ np.linalg.pinv(D.numpy(), rcond=1e-11)
    assert np.allclose((Z @ D).numpy(), naive @ D.numpy(), atol=1e-6)
    assert Z.isfinite().all()
    assert (Z.numpy() ** 2).sum() <= (naive**2).sum() * (1 + 1e-6) + 1e-9
