"""Dictionaries compared with themselves and with one another."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_reference import problem
from scipy.optimize import linear_sum_assignment

from seminmf_lightning.core.similarity import (
    collinearity,
    cosines,
    hungarian_distance,
    match_atoms,
    matched_share,
)


def test_collinearity_is_that_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seminmf_lightning.core.similarity.BLOCK_ATOMS", 3)
    D = problem(1, 8)[2]
    D[5] = 0
    unit = D.double() / D.double().norm(dim=1, keepdim=True).clamp(min=1e-300)
    pairs = (unit @ unit.T).numpy()[np.triu_indices(8, 1)]
    assert collinearity(D) == pytest.approx((pairs.max(), pairs.mean()))
    D[4] = 3 * D[1]
    assert collinearity(D).max == pytest.approx(1.0)
    assert all(math.isnan(value) for value in collinearity(D[:1]))
    assert collinearity(torch.eye(4)) == (0.0, 0.0)


def test_distance_sees_neither_order_nor_norms() -> None:
    D = problem(1, 7)[2]
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    other = D[order] * torch.rand(7, 1).add(0.1)
    assert hungarian_distance(D, other) == pytest.approx(0.0, abs=1e-7)
    assert matched_share(D, other) == 1.0
    assert (order.numpy()[match_atoms(D, other).second] == np.arange(7)).all()


def test_zero_atoms_count_one_and_do_not_crash() -> None:
    D = torch.eye(4)
    D[2] = 0
    assert hungarian_distance(D, D) == 0.25
    assert matched_share(D, D) == 0.75
    assert hungarian_distance(torch.zeros(3, 4), torch.zeros(3, 4)) == 1.0
    assert matched_share(torch.zeros(3, 4), D) == 0.0


def test_of_dictionaries_of_two_sizes_the_smaller_is_matched() -> None:
    D = torch.eye(6)
    assert hungarian_distance(D[:2], D) == hungarian_distance(D, D[:2]) == 0.0
    assert matched_share(D[:2], D) == matched_share(D, D[:2]) == 1.0
    assert hungarian_distance(D[:3], D[2:]) == pytest.approx(2 / 3)
    assert matched_share(D[:3], D[2:]) == pytest.approx(1 / 3)


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_matching_is_the_best_there_is(first: int, second: int, seed: int) -> None:
    D1, D2 = problem(1, first, seed)[2], problem(1, second, seed + 100)[2]
    cost = np.array(
        [
            [1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for b in D2.double().numpy()]
            for a in D1.double().numpy()
        ]
    )
    assert hungarian_distance(D1, D2) == pytest.approx(cost[linear_sum_assignment(cost)].mean(), abs=1e-12)


def test_dictionaries_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        cosines(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(ValueError, match="NaN or Inf"):
        hungarian_distance(torch.full((2, 3), math.nan), torch.ones(2, 3))
    with pytest.raises(TypeError, match="cosine"):
        matched_share(torch.ones(2, 3), torch.ones(2, 3), cosine="high")  # type: ignore[arg-type]
