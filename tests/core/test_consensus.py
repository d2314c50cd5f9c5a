"""Atoms that recur over seeds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seminmf_lightning.core.consensus import consensus
from seminmf_lightning.core.similarity import match_atoms


def near(D: torch.Tensor, seed: int, noise: float = 0.02) -> torch.Tensor:
    """Return the atoms in another order, of other lengths, a little off."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(D), generator=generator)
    moved = D[order] + noise * torch.randn(D.shape, generator=generator)
    return moved * (0.5 + torch.rand(len(D), 1, generator=generator))


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 5), st.integers(1, 8), st.integers(0, 99))
def test_it_holds_the_shared_atoms_once_and_averages_them(seeds: int, shared: int, seed: int) -> None:
    basis = torch.linalg.qr(torch.randn(60, 60, generator=torch.Generator().manual_seed(seed)))[0]
    truth = basis[:shared]
    dictionaries = [
        near(torch.cat([truth, basis[10 + 5 * number : 15 + 5 * number]]), seed + number)
        for number in range(seeds)
    ]
    found = consensus(dictionaries)
    assert found.D.shape == (shared, 60)
    assert found.seeds.tolist() == [seeds] * shared
    assert torch.allclose(found.D.norm(dim=1), torch.ones(shared, dtype=torch.float64))
    error = 1 - match_atoms(truth, found.D).cosine.mean()
    assert error < (1 - match_atoms(truth, dictionaries[0]).cosine.mean())  # a mean is nearer than one


def test_half_of_the_seeds_are_enough_and_one_is_not() -> None:
    I = torch.eye(6)  # noqa: E741
    found = consensus([I[[0, 1]], I[[1, 0]], I[[0, 2]], I[[0, 3]]])
    assert found.D.tolist() == I[[0, 1]].tolist()
    assert found.seeds.tolist() == [4, 2]
    assert consensus([I[:2], I[:2], I[2:4], I[2:4], I[:2]]).D.tolist() == I[:2].tolist()  # 3 of 5
    crowded = consensus([I[:2], I[:2], I[[0, 3]], I[[4, 3]]])  # three recur, dictionaries hold two
    assert crowded.D.tolist() == I[:2].tolist() and crowded.seeds.tolist() == [3, 2]
    with pytest.raises(ValueError, match="no atom recurs in 2 of 2"):
        consensus([I[:2], I[2:4]])
    with pytest.raises(ValueError, match="two or more"):
        consensus([I])


def test_signs_are_aligned_where_they_are_free() -> None:
    D = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    flipped = D * torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0])[:, None]
    found = consensus([D, flipped, near(D, 1)], sign_is_free=True)
    assert len(found.D) == 5
    assert (match_atoms(D, found.D, sign_is_free=True).cosine > 0.999).all()
    with pytest.raises(ValueError, match="no atom recurs"):
        consensus([D, -D])
