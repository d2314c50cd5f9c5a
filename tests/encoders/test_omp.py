"""Matching pursuit against a naive one that refits every candidate, and against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import orthogonal_mp
from small_problems import DEFECTS, rows_and_atoms

from seminmf_lightning.encoders.omp import OMP, SELECTIONS

pytestmark = pytest.mark.usefixtures("both_backends")
SHAPES = st.sampled_from([(6, 9), (9, 9), (30, 9), (70, 12)])


def naive_pursuit(a: np.ndarray, U: np.ndarray, nonzeros: int) -> np.ndarray:
    """Return the codes of one row; each step tries every atom and keeps that of the smallest error."""
    support: list[int] = []
    codes = np.zeros(len(U))
    for _ in range(nonzeros):
        errors = np.full(len(U), np.inf)
        for j in set(range(len(U))) - set(support):
            E = U[[*support, j]]
            if np.linalg.matrix_rank(E, tol=1e-6) == len(E):
                errors[j] = np.square(a - np.linalg.lstsq(E.T, a)[0] @ E).sum()
        if np.square(a - codes @ U).sum() - errors.min() < 1e-20:
            break
        support.append(int(errors.argmin()))
        codes[support] = np.linalg.lstsq(U[support].T, a)[0]
    return codes


@given(st.integers(0, 10_000), SHAPES, st.integers(1, 6), st.sampled_from(DEFECTS), st.booleans())
@settings(max_examples=15)
def test_agreement_with_the_definition(
    seed: int, shape: tuple[int, int], nonzeros: int, defect: str, positive_atoms: bool
) -> None:
    A, U = rows_and_atoms(seed, *shape, defect, nonnegative=positive_atoms)
    A = A[:8]
    lengths = torch.linspace(0.2, 3, len(U), dtype=torch.float64)[:, None]  # lengths do not matter
    Z = OMP(nonzeros=nonzeros).precise(U * lengths)(A) * lengths.T
    if defect == "repeated atom":  # either of the two
        Z[:, 0], U, Z = Z[:, 0] + Z[:, -1], U[:-1], Z[:, :-1]
    expected = np.stack([naive_pursuit(a, U.numpy(), nonzeros) for a in A.numpy()])
    assert np.allclose(Z.numpy(), expected, atol=1e-6)


@given(st.integers(0, 1000), st.sampled_from([(6, 9), (9, 9), (30, 9)]), st.integers(1, 6))
@settings(max_examples=40)
def test_by_correlation_it_is_that_of_scikit_learn(seed: int, shape: tuple[int, int], nonzeros: int) -> None:
    A, D = rows_and_atoms(seed, *shape)
    Z = OMP(nonzeros=nonzeros, selection="correlation").precise(D)(A)
    reference = orthogonal_mp(D.T.numpy(), A.T.numpy(), n_nonzero_coefs=nonzeros).T.reshape(Z.shape)
    assert np.allclose(Z.numpy(), reference, atol=1e-6)


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("defect", DEFECTS)
def test_zero_and_repeated_atoms(defect: str, dtype: torch.dtype, selection: str) -> None:
    A, D = (x.to(dtype) for x in rows_and_atoms(5, 8, 12, defect))
    A[0] = 0
    Z = OMP(nonzeros=8, selection=selection).precise(D)(A)
    assert Z.isfinite().all()
    assert (Z[0] == 0).all()
    atol = 1e-5 if dtype == torch.float64 else 1e-4
    assert torch.allclose(Z @ D, A @ torch.linalg.pinv(D) @ D, atol=atol)  # all atoms: least squares
    assert ((Z != 0).sum(dim=1) <= (8 if defect == "none" else 7)).all()


@pytest.mark.parametrize("nonnegative", [False, True])
def test_a_row_that_fits_exactly_ends_early_whatever_its_length(nonnegative: bool) -> None:
    _, D = (x.float() for x in rows_and_atoms(3, 40, 24, nonnegative=False))
    rows = torch.stack([2 * D[3], 0.5 * D[1] + 3 * D[7], D[0] + D[2] + D[4]])
    Z = OMP(nonzeros=6, nonnegative=nonnegative).precise(D)(torch.cat([rows, 1e12 * rows, 1e-12 * rows]))
    assert ((Z != 0).sum(dim=1) == torch.tensor([1, 2, 3] * 3)).all()
    assert torch.allclose(Z[3:6] / 1e12, Z[:3], atol=1e-5) and torch.allclose(Z[6:] * 1e12, Z[:3], atol=1e-5)


def test_more_than_128_nonzeros_are_least_squares_too() -> None:
    A, D = rows_and_atoms(5, 140, 150, nonnegative=False)
    Z = OMP(nonzeros=140).precise(D)(A[:3])
    assert torch.allclose(Z, A[:3] @ torch.linalg.pinv(D), atol=1e-5)


def test_bad_settings_are_refused() -> None:
    _, D = rows_and_atoms(5, 8, 12)
    with pytest.raises(ValueError, match=r"nonzeros=9 is more than min\(nb_concepts=8, features=12\)"):
        OMP(nonzeros=9).precise(D)
    with pytest.raises(ValueError, match="at least 1"):
        OMP(nonzeros=0)
    with pytest.raises(ValueError, match=r"encoder\.selection must be one of error, correlation; got 'eror'"):
        OMP(selection="eror")
