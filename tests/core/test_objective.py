"""Certificates hold for any codes, not only for the best ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from small_problems import rows_and_atoms

from seminmf_lightning.core.objective import lasso_duality_gap, nonnegativity_residual, optimality_gap
from seminmf_lightning.encoders.lasso import Lasso

CODES = {"zero": 0.0, "scaled": 0.5, "too large": 3.0}


@pytest.mark.parametrize("share", CODES.values(), ids=list(CODES))
@given(st.integers(0, 1000), st.sampled_from([0.02, 0.1, 0.5]), st.booleans())
@settings(max_examples=15)
def test_the_best_objective_is_within_the_gap(
    share: float, seed: int, penalty: float, nonnegative: bool
) -> None:
    A, D = rows_and_atoms(seed, 12, 9, nonnegative=False)
    best_codes = Lasso(l1_penalty=penalty, nonnegative=nonnegative, precise_gap=1e-9).precise(D)(A)
    best, none = lasso_duality_gap(A, best_codes, D, penalty, nonnegative=nonnegative)
    assert (none <= 1e-8 * best + 1e-12).all()
    objective, gap = lasso_duality_gap(A, share * best_codes, D, penalty, nonnegative=nonnegative)
    assert (objective - gap <= best + 1e-9).all()
    assert (
        gap <= objective + 1e-12
    ).all() or share > 1  # the dual value of the shrunk residual is not negative


def test_the_residual_of_nonnegative_codes_is_zero_at_the_minimum_alone() -> None:
    A, D = rows_and_atoms(1, 8, 12, nonnegative=False)
    Z = torch.from_numpy(np.stack([nnls(D.T.numpy(), a.numpy())[0] for a in A]))
    assert nonnegativity_residual(A, Z, D).max() < 1e-12
    assert (nonnegativity_residual(A, Z + 0.01, D) > 1e-4).all()
    at_zero = nonnegativity_residual(A, torch.zeros_like(Z), D)
    assert ((at_zero > 0) & (at_zero <= 1)).all()


def test_a_gap_needs_a_bound_that_rounding_leaves() -> None:
    assert optimality_gap(error=1.5, bound=1.0, rounding=0.1, spread=10.0) == pytest.approx(1.6 / 0.9 - 1)
    assert optimality_gap(error=1.5, bound=1.0, rounding=0.49, spread=10.0) == pytest.approx(1.99 / 0.51 - 1)
    assert optimality_gap(error=1.5, bound=1.0, rounding=0.5, spread=10.0) is None
    assert optimality_gap(error=0.5, bound=0.0, rounding=1e-13, spread=10.0) == 0.05
    assert optimality_gap(error=2e-13, bound=0.0, rounding=1e-13, spread=10.0) == 0.0
    assert optimality_gap(error=3e-13, bound=0.0, rounding=1e-13, spread=10.0) == pytest.approx(3e-14)
    assert optimality_gap(error=3.0, bound=1.0, rounding=9.0, spread=4.0, attainable_zero=True) == 0.0
    assert optimality_gap(error=30.0, bound=1.0, rounding=9.0, spread=40.0, attainable_zero=True) == 0.75
