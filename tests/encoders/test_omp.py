"""Matching pursuit against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import orthogonal_mp
from small_problems import DEFECTS, rows_and_atoms

from seminmf_lightning.encoders.omp import OMP

pytestmark = pytest.mark.usefixtures("both_backends")


@given(st.integers(0, 1000), st.sampled_from([(6, 9), (9, 9), (30, 9)]), st.integers(1, 6))
@settings(max_examples=40)
def test_agreement_with_scikit_learn(seed: int, shape: tuple[int, int], nonzeros: int) -> None:
    A, D = rows_and_atoms(seed, *shape)
    Z = OMP(nonzeros=nonzeros).precise(D)(A)
    reference = orthogonal_mp(D.T.numpy(), A.T.numpy(), n_nonzero_coefs=nonzeros).T.reshape(Z.shape)
    assert np.allclose(Z.numpy(), reference, atol=1e-6)


@pytest.mark.parametrize("defect", DEFECTS)
def test_zero_and_repeated_atoms(defect: str) -> None:
    A, D = rows_and_atoms(5, 8, 12, defect)
    A[0] = 0
    Z = OMP(nonzeros=8).precise(D)(A)
    assert Z.isfinite().all()
    assert (Z[0] == 0).all()
    assert torch.allclose(Z @ D, A @ torch.linalg.pinv(D) @ D, atol=1e-5)  # all atoms: least squares


def test_too_many_nonzeros_are_refused() -> None:
    _, D = rows_and_atoms(5, 8, 12)
    with pytest.raises(ValueError, match=r"nonzeros=9 is more than min\(nb_concepts=8, features=12\)"):
        OMP(nonzeros=9).precise(D)
    with pytest.raises(ValueError, match="at least 1"):
        OMP(nonzeros=0)
