"""Metrics against ground truth, each against its definition spelt out."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seminmf_lightning.core.recovery import (
    atom_mcc,
    code_mcc,
    detector_f1,
    explained_variance,
    nearest_features,
    uniqueness,
)

sizes = st.integers(1, 4)


def codes(rows: int, columns: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator).clamp(min=0)


def atoms(k: int, seed: int) -> Tensor:
    return torch.randn(k, 6, generator=torch.Generator().manual_seed(seed))


def best_mean(score: np.ndarray) -> float:
    """Return the best mean over one-to-one pairs, by trying them all."""
    score = score if score.shape[0] <= score.shape[1] else score.T
    rows = range(score.shape[0])
    return max(np.mean(score[rows, order]) for order in permutations(range(score.shape[1]), len(rows)))


def correlations(Z: np.ndarray, U: np.ndarray) -> np.ndarray:
    return np.array(
        [[abs(np.corrcoef(z, u)[0, 1]) if np.ptp(z) and np.ptp(u) else 0.0 for u in U.T] for z in Z.T]
    )


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, st.integers(0, 99))
def test_code_mcc_is_the_published_one(true: int, learned: int, seed: int) -> None:
    Z, U = codes(12, true, seed), codes(12, learned, seed + 1)
    Z[0], U[0, 0] = 1 + torch.arange(true), 3.0  # every latent varies
    noise = np.random.RandomState(42).normal(0, 1, (12, abs(true - learned)))
    wide = [Z.double().numpy(), U.double().numpy()]
    narrow = 0 if true < learned else 1
    wide[narrow] = np.hstack([wide[narrow], noise])
    assert code_mcc(Z, U) == pytest.approx(best_mean(correlations(*wide)), abs=1e-9)
    if true <= learned:
        kept = U[:, np.argsort(-U.double().numpy().var(axis=0), kind="stable")[:true]]
        expected = best_mean(correlations(Z.double().numpy(), kept.double().numpy()))
        assert code_mcc(Z, U, as_many=True) == pytest.approx(expected, abs=1e-9)


def test_code_mcc_sees_neither_order_nor_scale_and_leaves_constant_latents_out() -> None:
    Z = codes(50, 5, 0)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert code_mcc(Z, -2 * Z[:, order] + 1) == pytest.approx(1)
    with_constant = torch.cat([Z, torch.ones(50, 2)], dim=1)
    assert code_mcc(with_constant, Z) == pytest.approx(1)
    # A spare code costs unless only as many as vary are kept; a constant code correlates with nothing.
    spare = torch.cat([0.01 * codes(50, 3, 1), Z], dim=1)
    assert code_mcc(Z, spare) < 0.8
    assert code_mcc(Z, spare, as_many=True) == pytest.approx(1)
    assert code_mcc(Z, torch.zeros(50, 5)) == 0
    with pytest.raises(ValueError, match="50 rows, learned codes 49"):
        code_mcc(Z, Z[:49])
    with pytest.raises(ValueError, match="no true code varies"):
        code_mcc(torch.ones(3, 2), torch.ones(3, 2))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_atoms_are_compared_as_defined(n: int, k: int, seed: int) -> None:
    A, D = atoms(n, seed), atoms(k, seed + 1)
    cosine = np.array([[abs(float(torch.cosine_similarity(a, d, dim=0))) for d in D] for a in A])
    assert atom_mcc(A, D) == pytest.approx(best_mean(cosine), abs=1e-6)
    assert nearest_features(A, D).tolist() == cosine.argmax(axis=0).tolist()
    assert uniqueness(A, D) == len(set(cosine.argmax(axis=0))) / k


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, st.integers(0, 99))
def test_detector_f1_is_the_mean_of_the_definition(n: int, k: int, seed: int) -> None:
    Z, U = codes(10, n, seed), codes(10, k, seed + 1) * torch.tensor([1.0, -1.0]).repeat(5)[:, None]
    U[:, 0] = 0  # an atom that never fires
    nearest = torch.randint(0, n, (k,), generator=torch.Generator().manual_seed(seed))
    found = []
    for atom, feature in enumerate(nearest):
        fires, truth = [u != 0 for u in U[:, atom]], [z != 0 for z in Z[:, feature]]
        hits = sum(bool(f and t) for f, t in zip(fires, truth, strict=True))
        precision, recall = hits / max(1, sum(fires)), hits / max(1, sum(truth))
        found.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    assert detector_f1(Z, U, nearest) == pytest.approx(np.mean(found))


def test_explained_variance_is_r2_over_all_entries() -> None:
    Y = atoms(8, 0)
    assert explained_variance(Y, Y) == 1
    assert explained_variance(Y, Y.mean(dim=0).expand_as(Y)) == pytest.approx(0, abs=1e-7)
    assert explained_variance(Y + 5, Y + 5 + 1) == pytest.approx(
        1 - Y.numel() / float((Y - Y.mean(0)).square().sum())
    )
