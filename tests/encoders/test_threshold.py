"""Threshold codes against scikit-learn's lasso path, scipy's nnls, and their own certificate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.linear_model import lars_path
from small_problems import DEFECTS, rows_and_atoms
from torch import Tensor

from seminmf_lightning.core.objective import refit_residual
from seminmf_lightning.encoders import numba_kernels, threshold
from seminmf_lightning.encoders.threshold import Threshold

pytestmark = pytest.mark.usefixtures("both_backends")
SHAPES = st.sampled_from([(6, 9), (9, 9), (30, 9), (40, 20)])


def naive_path(U: np.ndarray, a: np.ndarray, longest: int, nonnegative: bool) -> np.ndarray:
    """Return lasso codes of one row where it would get more than ``longest``, from each event to the next.

    On a support with signs s, codes are ``x - penalty w`` and correlations ``p + penalty r``.
    """
    G, q = U @ U.T, U @ a
    signs = np.zeros(len(U))
    penalty = np.inf
    while True:
        on = signs != 0
        x, w = np.linalg.solve(G[np.ix_(on, on)], np.stack([q[on], signs[on]]).T).T
        p, r = q - G[:, on] @ x, G[:, on] @ w
        codes = np.zeros(len(U))
        with np.errstate(divide="ignore", invalid="ignore"):
            leave, up, down = np.zeros((3, len(U)))
            leave[on] = x / w
            up[~on] = (p / (1 - r))[~on]
            down[~on] = 0 if nonnegative else (p / (-1 - r))[~on]
        events = np.stack([leave, up, down])
        events[events >= penalty * (1 - 1e-9)] = 0
        kind, atom = np.unravel_index(np.argmax(events), events.shape)
        following = events[kind, atom]
        codes[on] = x - max(following, 0) * w
        if following <= 0 or (kind > 0 and on.sum() == longest):
            return codes
        penalty, signs[atom] = following, (0, 1, -1)[kind]


def reference(a: Tensor, D: Tensor, nonzeros: int, nonnegative: bool) -> np.ndarray:
    """Return the codes of one row: the path to 2 nonzeros, the largest, scipy's refit."""
    atoms, row = D.T.numpy(), a.numpy()
    U = D.numpy() / np.linalg.norm(D.numpy(), axis=1, keepdims=True)
    codes = np.zeros(len(D))
    if (U @ row).max() <= 0 and nonnegative:
        return codes
    lasso = naive_path(U, row, min(2 * nonzeros, *D.shape), nonnegative)
    kept = np.argsort(-np.abs(lasso))[:nonzeros]
    kept = kept[np.abs(lasso[kept]) > 1e-12]
    codes[kept] = nnls(atoms[:, kept], row)[0] if nonnegative else np.linalg.lstsq(atoms[:, kept], row)[0]
    return codes


@given(st.integers(0, 10_000), SHAPES, st.integers(1, 6), st.booleans(), st.booleans())
@settings(max_examples=30)
def test_agreement_with_the_definition(
    seed: int, shape: tuple[int, int], nonzeros: int, nonnegative: bool, positive_atoms: bool
) -> None:
    A, D = rows_and_atoms(seed, *shape, nonnegative=positive_atoms)
    D = D * torch.linspace(0.2, 3, len(D), dtype=torch.float64)[:, None]  # lengths do not matter
    Z = Threshold(nonzeros=nonzeros, nonnegative=nonnegative).precise(D)(A)
    expected = np.stack([reference(a, D, nonzeros, nonnegative) for a in A])
    assert np.allclose(Z.numpy(), expected, atol=1e-6)


@given(st.integers(0, 10_000), SHAPES, st.integers(1, 18))
@settings(max_examples=10)
def test_the_naive_path_is_that_of_scikit_learn(seed: int, shape: tuple[int, int], longest: int) -> None:
    A, U = (x.numpy() for x in rows_and_atoms(seed, *shape, nonnegative=False))
    longest = min(longest, *shape)
    for a in A[:5]:
        _, _, path = lars_path(U.T, a, method="lasso")
        between = (path[:, 1:] + path[:, :-1]) / 2  # codes that enter or leave at an end are nonzero here
        longer = ((np.abs(between) > 1e-12).sum(axis=0) > longest).nonzero()[0]
        assert np.allclose(naive_path(U, a, longest, False), path[:, longer[0] if len(longer) else -1])


def residual(A: Tensor, Z: Tensor, D: Tensor, nonnegative: bool) -> Tensor:
    """Return the certificate on the nonzeros of each row, computed anew in float64."""
    codes, atoms = Z.double().abs().topk(min(D.shape), dim=1)
    E = D.double()[atoms] * (codes > 0)[:, :, None]
    return refit_residual(A.double(), Z.double().gather(1, atoms), E, nonnegative=nonnegative)


@given(
    st.integers(0, 10_000), SHAPES, st.integers(1, 6), st.sampled_from(DEFECTS), st.booleans(), st.booleans()
)
@settings(max_examples=30)
def test_every_row_is_certified(
    seed: int, shape: tuple[int, int], nonzeros: int, defect: str, nonnegative: bool, single: bool
) -> None:
    dtype = torch.float32 if single else torch.float64
    A, D = (x.to(dtype) for x in rows_and_atoms(seed, *shape, defect))
    A[0] = 0
    Z = Threshold(nonzeros=nonzeros, nonnegative=nonnegative).precise(D)(A)
    assert ((Z != 0).sum(dim=1) <= nonzeros).all()
    assert (residual(A, Z, D, nonnegative) <= 64 * torch.finfo(dtype).eps).all()


@pytest.mark.parametrize("nonnegative", [False, True])
def test_rows_that_miss_the_certificate_are_solved_again(
    nonnegative: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    A, D = rows_and_atoms(3, 40, 20)
    encoder = Threshold(nonzeros=5, nonnegative=nonnegative)
    right = encoder.precise(D)(A)
    name = "_compiled" if numba_kernels.usable(D) else "_batched"
    select = getattr(Threshold, name)

    def spoiled(self: Threshold, U: Tensor) -> threshold.Select:
        def wrong(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            Z, support, residual = select(self, U)(A)
            assert (residual < 64 * torch.finfo(A.dtype).eps).all()
            Z[::3], residual[::3] = 0.0, torch.nan
            return Z, support, residual

        return wrong

    monkeypatch.setattr(Threshold, name, spoiled)
    assert torch.allclose(encoder.precise(D)(A), right, atol=1e-12)


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("defect", DEFECTS)
def test_all_atoms_are_least_squares(defect: str, nonnegative: bool) -> None:
    A, D = rows_and_atoms(5, 8, 12, defect)
    A[0] = 0
    Z = Threshold(nonzeros=8, nonnegative=nonnegative).precise(D)(A)
    best = (A @ torch.linalg.pinv(D) @ D) if not nonnegative else None
    assert (Z[0] == 0).all()
    if best is not None:
        assert torch.allclose(Z @ D, best, atol=1e-5)
    else:
        error = np.array([nnls(D.T.numpy(), a.numpy())[1] for a in A])
        assert np.allclose((A - Z @ D).norm(dim=1).numpy(), error, atol=1e-6)


def test_codes_scale_with_the_row() -> None:
    A, D = rows_and_atoms(1, 40, 20)
    encode = Threshold(nonzeros=4).precise(D)
    assert torch.allclose(encode(1e6 * A), 1e6 * encode(A), rtol=1e-9)


def test_too_many_nonzeros_are_refused() -> None:
    _, D = rows_and_atoms(5, 8, 12)
    with pytest.raises(ValueError, match=r"nonzeros=9 is more than min\(nb_concepts=8, features=12\)"):
        Threshold(nonzeros=9).precise(D)
    with pytest.raises(ValueError, match="at least 1"):
        Threshold(nonzeros=0)
