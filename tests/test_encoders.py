"""Codes against independent solvers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso as SklearnLasso

from seminmf_lightning.encoders.lasso import Lasso
from seminmf_lightning.encoders.least_squares import LeastSquares
from seminmf_lightning.objective import lasso_duality_gap


def rows_and_atoms(seed: int, k: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    D = torch.rand(k, d, generator=generator, dtype=torch.float64)
    A = torch.randn(30, d, generator=generator, dtype=torch.float64)
    return A / A.norm(dim=1).mean(), D / D.norm(dim=1, keepdim=True)


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 12), st.sampled_from(["plain", "zero", "twice"]))
@settings(max_examples=40, deadline=None)
def test_least_squares_is_optimal_and_of_least_norm(seed: int, k: int, d: int, defect: str) -> None:
    A, D = rows_and_atoms(seed, k, d)
    if defect == "zero":
        D[0] = 0
    if defect == "twice":
        D[-1] = D[0]
    Z = LeastSquares().precise(D)(A)
    naive = A.numpy() @ np.linalg.pinv(D.numpy(), rcond=1e-11)
    assert np.allclose((Z @ D).numpy(), naive @ D.numpy(), atol=1e-6)
    assert Z.isfinite().all()


@pytest.mark.parametrize(("k", "d"), [(8, 16), (20, 16), (60, 16)])
def test_lasso_agrees_with_scikit_learn_and_its_certificate_holds(k: int, d: int) -> None:
    A, D = rows_and_atoms(3, k, d)
    encoder = Lasso(l1_penalty=0.1, precise_gap=1e-8, max_iter=20_000)
    Z = encoder.precise(D)(A)
    objective, gap = lasso_duality_gap(A, Z, D, 0.1)
    assert (gap <= 1e-7 * objective).all()
    for row in range(3):
        reference = SklearnLasso(alpha=0.1 / d, fit_intercept=False, tol=1e-12, max_iter=100_000)
        reference.fit(D.T.numpy(), A[row].numpy())
        assert np.allclose(Z[row].numpy(), reference.coef_, atol=1e-3)


def test_training_codes_do_not_depend_on_the_batch_and_empty_batches_work() -> None:
    A, D = (x.float() for x in rows_and_atoms(4, 10, 16))
    encoder = Lasso(l1_penalty=0.1)
    encode = encoder.training(D, encoder.settle(D, A))
    assert torch.allclose(torch.cat([encode(A[:11]), encode(A[11:])]), encode(A), atol=1e-6)
    assert encode(A[:0]).shape == (0, 10)
    assert encoder.precise(D)(A[:0]).shape == (0, 10)
