"""Nonnegative codes against scipy's nnls, scikit-learn's positive lasso, and their own certificates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.linear_model import Lasso as SklearnLasso
from small_problems import DEFECTS, rows_and_atoms

from seminmf_lightning.core.objective import lasso_duality_gap, nonnegativity_residual
from seminmf_lightning.encoders.lasso import Lasso
from seminmf_lightning.encoders.least_squares import LeastSquares, codes_by_their_zeros, nonnegative_codes
from seminmf_lightning.encoders.omp import OMP, SELECTIONS

pytestmark = pytest.mark.usefixtures("both_backends")
PROBLEMS = (
    st.integers(0, 10_000),
    st.integers(1, 30),
    st.integers(1, 20),
    st.sampled_from(DEFECTS),
    st.booleans(),
)


def squared_errors(A: torch.Tensor, Z: torch.Tensor, D: torch.Tensor) -> torch.Tensor:
    return (A.double() - Z.double() @ D.double()).square().sum(dim=1)


@given(*PROBLEMS, st.booleans())
@example(7212, 16, 7, "none", False, True)  # an atom that a float32 Gram matrix takes for a sum of others
@example(1634, 21, 8, "none", False, True)  # the same, below the rounding of its correlation
@settings(max_examples=25)
def test_least_squares_equals_scipy(
    seed: int, k: int, d: int, defect: str, positive_atoms: bool, single: bool
) -> None:
    A, D = rows_and_atoms(seed, k, d, defect, nonnegative=positive_atoms)
    dtype = torch.float32 if single else torch.float64
    Z = LeastSquares(nonnegative=True).precise(D.to(dtype))(A.to(dtype))
    D, A = D.to(dtype).double(), A.to(dtype).double()
    best = np.array([nnls(D.T.numpy(), a.numpy())[1] ** 2 for a in A])
    assert (Z >= 0).all()
    assert (squared_errors(A, Z, D).numpy() <= best + 1e-6 * A.square().sum(dim=1).numpy()).all()
    assert nonnegativity_residual(A, Z.double(), D).max() < (2e-4 if single else 1e-6)


@given(*PROBLEMS, st.sampled_from([0.02, 0.1, 0.4]))
@settings(max_examples=25)
def test_lasso_equals_scikit_learn(
    seed: int, k: int, d: int, defect: str, positive_atoms: bool, penalty: float
) -> None:
    A, D = rows_and_atoms(seed, k, d, defect, nonnegative=positive_atoms)
    Z = Lasso(l1_penalty=penalty, nonnegative=True, precise_gap=1e-8).precise(D)(A)
    peer = SklearnLasso(alpha=penalty / d, positive=True, fit_intercept=False, tol=1e-10, max_iter=100_000)
    expected = torch.from_numpy(np.stack([peer.fit(D.T.numpy(), a.numpy()).coef_ for a in A]))
    ours, gap = lasso_duality_gap(A, Z, D, penalty, nonnegative=True)
    theirs, _ = lasso_duality_gap(A, expected, D, penalty, nonnegative=True)
    assert (Z >= 0).all()
    assert (ours <= theirs + 1e-6 * theirs.clamp(min=1e-3)).all()
    assert (gap <= 1e-6 * ours + 1e-12).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_ways_to_least_squares_agree(dtype: torch.dtype) -> None:
    A, D = (x.to(dtype) for x in rows_and_atoms(3, 18, 24, nonnegative=False))
    by_zeros = codes_by_their_zeros(D)
    assert by_zeros is not None
    one, other = nonnegative_codes(D)(A), by_zeros(A)
    assert torch.allclose(one, other, atol=1e-5 if dtype == torch.float32 else 1e-9)
    assert (other >= 0).all() and (other == 0).any()
    assert codes_by_their_zeros(torch.cat([D, D])) is None  # more atoms than features: no inverse


def test_the_share_of_nonzeros_chooses_the_way_and_not_the_codes() -> None:
    A, D = rows_and_atoms(3, 18, 24, nonnegative=False)
    encoder = LeastSquares(nonnegative=True)
    (share,) = encoder.calibrate(D, A)
    assert 0 < share < 1
    assert torch.allclose(encoder.training(D, (0.1,))(A), encoder.training(D, (0.9,))(A), atol=1e-9)


def naive_pursuit(a: np.ndarray, U: np.ndarray, nonzeros: int, selection: str) -> np.ndarray:
    """Add the atom of positive correlation that lowers the error most (or is most correlated), then solve
    nonnegative least squares on the support."""

    def error(support: list[int]) -> float:
        return float(np.square(a - np.linalg.lstsq(U[support].T, a)[0] @ U[support]).sum())

    support: list[int] = []
    codes = np.zeros(len(U))
    for _ in range(4 * nonzeros):
        correlation = U @ (a - codes @ U)
        correlation[support] = 0
        if len(support) == nonzeros or correlation.max() < 1e-9:
            break
        gain = correlation
        if selection == "error":
            gain = np.array(
                [-error([*support, j]) if correlation[j] > 1e-9 else -np.inf for j in range(len(U))]
            )
        support.append(int(gain.argmax()))
        codes = np.zeros(len(U))
        codes[support] = nnls(U[support].T, a)[0]
        support = [j for j in support if codes[j] > 0]
    return codes


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("nonzeros", [1, 3, 6])
@pytest.mark.parametrize("positive_atoms", [False, True])
def test_matching_pursuit_is_the_naive_one(nonzeros: int, selection: str, positive_atoms: bool) -> None:
    A, D = rows_and_atoms(5, 40, 24, nonnegative=positive_atoms)
    Z = OMP(nonzeros=nonzeros, nonnegative=True, selection=selection).precise(3 * D)(A)
    expected = np.stack([naive_pursuit(a, D.numpy(), nonzeros, selection) for a in A.numpy()]) / 3
    assert (Z >= 0).all() and ((Z > 0).sum(dim=1) <= nonzeros).all()
    assert np.allclose(Z.numpy(), expected, atol=1e-8)


@given(*PROBLEMS, st.sampled_from(SELECTIONS), st.booleans())
@settings(max_examples=25)
def test_matching_pursuit_of_all_atoms_is_least_squares(
    seed: int, k: int, d: int, defect: str, positive_atoms: bool, selection: str, single: bool
) -> None:
    A, D = rows_and_atoms(seed, k, d, defect, nonnegative=positive_atoms)
    dtype = torch.float32 if single else torch.float64
    Z = OMP(nonzeros=min(k, d), nonnegative=True, selection=selection).precise(D.to(dtype))(A.to(dtype))
    best = np.array([nnls(D.T.numpy(), a.numpy())[1] ** 2 for a in A])
    assert (Z >= 0).all()
    assert (squared_errors(A, Z, D).numpy() <= best + 1e-3 * A.square().sum(dim=1).numpy()).all()


def test_a_refit_keeps_codes_nonnegative() -> None:
    A, D = rows_and_atoms(7, 40, 24)
    plain = Lasso(l1_penalty=0.1, nonnegative=True).precise(D)(A)
    refitted = Lasso(l1_penalty=0.1, nonnegative=True, refit=True).precise(D)(A)
    assert (refitted >= 0).all() and (refitted[plain == 0] == 0).all()
    assert (squared_errors(A, refitted, D) <= squared_errors(A, plain, D) + 1e-12).all()
