"""Lasso codes against an independent solver and the optimality conditions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso as SklearnLasso
from small_problems import DEFECTS, rows_and_atoms

from seminmf_lightning.core.objective import lasso_duality_gap
from seminmf_lightning.encoders.lasso import Lasso

pytestmark = pytest.mark.usefixtures("both_backends")


@pytest.mark.parametrize(("k", "d"), [(8, 16), (20, 16), (60, 16)])
def test_agreement_with_scikit_learn_and_the_certificate(k: int, d: int) -> None:
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
@settings(max_examples=40)
def test_optimality_conditions(seed: int, shape: tuple[int, int], penalty: float, defect: str) -> None:
    A, D = rows_and_atoms(seed, *shape, defect)
    Z = Lasso(l1_penalty=penalty, precise_gap=1e-7, max_iter=5000).precise(D)(A)
    objective, gap = lasso_duality_gap(A, Z, D, penalty)
    assert (gap <= 1.01e-7 * objective).all()
    correlation = (A - Z @ D) @ D.T  # penalty * sign(z) where z is not zero, at most the penalty elsewhere
    slack = (2 * gap.clamp(min=0)).sqrt()[:, None] + 1e-9  # of the residual, and atoms are unit
    assert (correlation.abs() <= penalty + slack).all()
    live = Z.abs() > 1e-6
    assert ((correlation - penalty * Z.sign()).abs()[live] <= (slack.expand_as(Z) + 1e-5)[live]).all()


@given(st.integers(0, 1000), st.sampled_from([(4, 9), (9, 9), (30, 9)]), st.sampled_from(DEFECTS))
@settings(max_examples=40)
def test_refit_never_has_a_larger_residual(seed: int, shape: tuple[int, int], defect: str) -> None:
    A, D = rows_and_atoms(seed, *shape, defect)
    Z = Lasso(l1_penalty=0.1).precise(D)(A)
    refit = Lasso(l1_penalty=0.1, refit=True).precise(D)(A)
    assert ((A - refit @ D).norm(dim=1) <= (A - Z @ D).norm(dim=1) + 1e-9).all()
    assert not ((refit != 0) & (Z == 0)).any()


@pytest.mark.parametrize(
    ("argument", "value"), [("l1_penalty", 0), ("gap", 0), ("precise_gap", -1), ("max_iter", 0)]
)
def test_arguments_are_checked(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=argument):
        Lasso(**{"l1_penalty": 0.1} | {argument: value})


def test_limits() -> None:
    encoder = Lasso(l1_penalty=0.1)
    assert encoder.with_limits(7, None) == Lasso(l1_penalty=0.1, max_iter=7)
    assert encoder.with_limits(None, 0.5) == Lasso(l1_penalty=0.1, precise_gap=0.5)


def test_training_reaches_the_mean_gap() -> None:
    A, D = (x.float() for x in rows_and_atoms(8, 40, 16))
    encoder = Lasso(l1_penalty=0.1, gap=1e-3)
    Z = encoder.training(D, encoder.calibrate(D, A))(A)
    objective, gap = lasso_duality_gap(A.double(), Z.double(), D.double(), 0.1)
    least = Lasso(l1_penalty=0.1, precise_gap=1e-7, max_iter=5000).precise(D.double())(A.double())
    best = lasso_duality_gap(A.double(), least, D.double(), 0.1)[0]
    assert (objective - best).mean() <= 1.1e-3 * objective.mean()
    assert torch.isfinite(gap).all()


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize(("k", "d"), [(11, 2), (23, 2), (17, 1), (30, 5)])
def test_every_row_is_certified_where_most_atoms_depend_on_each_other(
    k: int, d: int, nonnegative: bool
) -> None:
    for seed in range(6):
        A, D = rows_and_atoms(seed, k, d, nonnegative=seed % 2 == 0)
        Z = Lasso(l1_penalty=0.02, nonnegative=nonnegative, precise_gap=1e-8).precise(D)(A)
        objective, gap = lasso_duality_gap(A, Z, D, 0.02, nonnegative=nonnegative)
        assert (gap <= 1.01e-8 * objective).all()
