"""Agreement of seeds, less what shuffled atoms have."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from seminmf_lightning.core.stability import shuffled, stability_of, without_mean_atom


def random(k: int, d: int, seed: int) -> torch.Tensor:
    return torch.rand(k, d, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 4), st.integers(1, 6), st.integers(0, 99), st.booleans())
def test_it_is_the_mean_over_pairs(seeds: int, k: int, seed: int, centered: bool) -> None:
    dictionaries = [random(k, 5, seed + number) for number in range(seeds)]
    cosines, shares = [], []
    for pair in combinations(dictionaries, 2):
        units = [D.double().numpy() / np.linalg.norm(D.double().numpy(), axis=1)[:, None] for D in pair]
        if centered:
            units = [U - U.mean(axis=0) for U in units]
            units = [U / np.maximum(np.linalg.norm(U, axis=1), 1e-300)[:, None] for U in units]
        product = units[0] @ units[1].T
        matched = product[linear_sum_assignment(-product)]
        cosines.append(matched.mean())
        shares.append((matched >= 0.9).mean())
    found = stability_of(dictionaries, centered=centered)
    if centered and k == 1:
        return  # a single atom less itself is rounding
    assert found.cosine == pytest.approx(np.mean(cosines), abs=1e-9)
    assert found.share == pytest.approx(np.mean(shares))
    assert found.seeds == seeds


def test_shuffling_keeps_the_entries_of_each_atom() -> None:
    D = random(20, 30, 0)
    other = shuffled(D, torch.Generator().manual_seed(1))
    assert torch.equal(other.sort(dim=1).values, D.sort(dim=1).values)
    assert (other != D).any(dim=1).all()
    orders = {tuple(row) for row in (other[:, None] == D[:, :, None]).int().argmax(dim=1).tolist()}
    assert len(orders) == 20  # each atom by itself


def test_nonnegative_noise_agrees_by_chance_and_is_worth_nothing() -> None:
    noise = [random(64, 16, seed) for seed in range(3)]
    plain, centered = stability_of(noise), stability_of(noise, centered=True)
    assert plain.cosine > 0.8  # what nonnegativity alone gives
    assert centered.cosine < 0.6
    assert abs(plain.above_null) < 0.02 and abs(centered.above_null) < 0.02
    same = stability_of([noise[0], noise[0][torch.randperm(64)]], centered=True)
    assert same.cosine == pytest.approx(1) and same.share == 1 and same.above_null > 0.4
    assert stability_of(noise) == plain  # the shuffles have a seed of their own


def test_zero_atoms_never_agree() -> None:
    D = torch.eye(6)
    D[4:] = 0
    for centered in (False, True):
        assert stability_of([D, D.flip(0)], centered=centered).cosine == pytest.approx(4 / 6)
    assert not without_mean_atom(torch.zeros(2, 3)).any()


def test_an_atom_and_its_negative_are_one_where_signs_are_free() -> None:
    D = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))
    assert stability_of([D, -D], sign_is_free=True, centered=True).share == 1
    assert stability_of([D, -D]).share == 0
    with pytest.raises(ValueError, match="got 1"):
        stability_of([D])
