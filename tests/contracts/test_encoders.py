"""Codes against independent solvers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso as SklearnLasso
from sklearn.linear_model import orthogonal_mp

from seminmf_lightning.core.objective import lasso_duality_gap
from seminmf_lightning.encoders import numba_kernels as compiled
from seminmf_lightning.encoders.base import Encoder
from seminmf_lightning.encoders.lasso import Lasso
from seminmf_lightning.encoders.least_squares import LeastSquares
from seminmf_lightning.encoders.omp import OMP


@pytest.fixture(params=["batched", "compiled"], autouse=True, scope="module")
def _way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test of this file holds for the batched algorithms and for the compiled ones."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "batched":
            patch.setattr(compiled, "njit", None)
        elif compiled.njit is None:
            pytest.skip("numba is not installed")
        yield


def rows_and_atoms(seed: int, k: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    D = torch.rand(k, d, generator=generator, dtype=torch.float64)
    A = torch.randn(30, d, generator=generator, dtype=torch.float64)
    return A / A.norm(dim=1).mean(), D / D.norm(dim=1, keepdim=True)


DEFECTS = ["plain", "zero", "twice"]


def spoil(D: torch.Tensor, defect: str) -> None:
    if defect == "zero":
        D[0] = 0
    if defect == "twice":
        D[-1] = D[0]


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 12), st.sampled_from(DEFECTS))
@settings(max_examples=40, deadline=None)
def test_least_squares_is_optimal_and_of_least_norm(seed: int, k: int, d: int, defect: str) -> None:
    A, D = rows_and_atoms(seed, k, d)
    spoil(D, defect)
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


@given(
    st.integers(0, 1000),
    st.sampled_from([(4, 9), (9, 9), (30, 9)]),
    st.floats(0.01, 0.5),
    st.sampled_from(DEFECTS),
)
@settings(max_examples=40, deadline=None)
def test_lasso_codes_satisfy_the_optimality_conditions(
    seed: int, shape: tuple[int, int], penalty: float, defect: str
) -> None:
    A, D = rows_and_atoms(seed, *shape)
    spoil(D, defect)
    Z = Lasso(l1_penalty=penalty, precise_gap=1e-7, max_iter=5000).precise(D)(A)
    objective, gap = lasso_duality_gap(A, Z, D, penalty)
    assert (gap <= 1.01e-7 * objective).all()
    correlation = (A - Z @ D) @ D.T  # penalty * sign(z) where z is not zero, at most the penalty elsewhere
    slack = (2 * gap.clamp(min=0)).sqrt()[:, None] + 1e-9  # of the residual, and atoms are unit
    assert (correlation.abs() <= penalty + slack).all()
    assert (
        (correlation - penalty * Z.sign()).abs()[Z.abs() > 1e-6]
        <= (slack.expand_as(Z) + 1e-5)[Z.abs() > 1e-6]
    ).all()


@given(st.integers(0, 1000), st.sampled_from([(4, 9), (9, 9), (30, 9)]), st.sampled_from(DEFECTS))
@settings(max_examples=40, deadline=None)
def test_refit_never_has_a_larger_residual(seed: int, shape: tuple[int, int], defect: str) -> None:
    A, D = rows_and_atoms(seed, *shape)
    spoil(D, defect)
    Z = Lasso(l1_penalty=0.1).precise(D)(A)
    refit = Lasso(l1_penalty=0.1, refit=True).precise(D)(A)
    assert ((A - refit @ D).norm(dim=1) <= (A - Z @ D).norm(dim=1) + 1e-9).all()
    assert not ((refit != 0) & (Z == 0)).any()


@given(st.integers(0, 1000), st.sampled_from([(6, 9), (9, 9), (30, 9)]), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_omp_agrees_with_scikit_learn(seed: int, shape: tuple[int, int], nonzeros: int) -> None:
    A, D = rows_and_atoms(seed, *shape)
    Z = OMP(nonzeros=nonzeros).precise(D)(A)
    assert np.allclose(
        Z.numpy(),
        orthogonal_mp(D.T.numpy(), A.T.numpy(), n_nonzero_coefs=nonzeros).T.reshape(Z.shape),
        atol=1e-6,
    )


@pytest.mark.parametrize("defect", DEFECTS)
def test_omp_survives_zero_and_repeated_atoms(defect: str) -> None:
    A, D = rows_and_atoms(5, 8, 12)
    spoil(D, defect)
    A[0] = 0
    Z = OMP(nonzeros=8).precise(D)(A)
    assert Z.isfinite().all()
    assert (Z[0] == 0).all()
    assert torch.allclose(Z @ D, A @ torch.linalg.pinv(D) @ D, atol=1e-5)  # all atoms together: least squares
    with pytest.raises(ValueError, match="nonzeros=9 is more than"):
        OMP(nonzeros=9).precise(D)


@pytest.mark.parametrize(
    "encoder", [Lasso(l1_penalty=0.1), OMP(nonzeros=3), LeastSquares()], ids=lambda e: type(e).__name__
)
def test_codes_of_a_row_do_not_depend_on_its_batch(encoder: Encoder) -> None:
    A, D = (x.float() for x in rows_and_atoms(6, 40, 16))
    effort = encoder.calibrate(D, A)
    for encode in (encoder.precise(D, effort), encoder.training(D, effort)):
        assert torch.allclose(torch.cat([encode(rows) for rows in A.split(7)]), encode(A), atol=1e-6)
        assert encode(A[:0]).shape == (0, 40)


def test_training_codes_do_not_depend_on_the_batch_and_empty_batches_work() -> None:
    A, D = (x.float() for x in rows_and_atoms(4, 10, 16))
    encoder = Lasso(l1_penalty=0.1)
    encode = encoder.training(D, encoder.calibrate(D, A))
    assert torch.allclose(torch.cat([encode(A[:11]), encode(A[11:])]), encode(A), atol=1e-6)
    assert encode(A[:0]).shape == (0, 10)
    assert encoder.precise(D)(A[:0]).shape == (0, 10)
