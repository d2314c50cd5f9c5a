"""Frequencies, trees and sizes of the hierarchical problem."""

from __future__ import annotations

import numpy as np
import pytest

from seminmf_lightning.suites.planted.hierarchical import Hierarchical


def test_rows_follow_the_law() -> None:
    problem = Hierarchical(seed=0, latents=60, dimensions=20, samples=40_000, roots=3, branching=2, depth=2)
    codes = problem.split().train.codes.toarray()
    fires, trees = codes != 0, problem.in_trees
    assert len(trees) == 3 * (1 + 2 + 4)
    assert problem.firing[0] == pytest.approx(0.4) and problem.firing[-1] == pytest.approx(5e-4)
    ratio = (problem.firing[3] - 5e-4) / (problem.firing[0] - 5e-4)
    assert ratio == pytest.approx((4**-0.5 - 60**-0.5) / (1 - 60**-0.5))
    alone = np.setdiff1d(np.arange(60), trees)
    for free in (alone, trees[:3]):
        assert fires[:, free].mean(axis=0) == pytest.approx(problem.firing[free], abs=0.015)
    for place in range(3, len(trees)):
        parent = trees[(place - 3) // 2]
        assert parent < trees[place]  # at least as frequent
        assert not (fires[:, trees[place]] & ~fires[:, parent]).any()
        sibling = trees[3 + ((place - 3) ^ 1)]
        assert not (fires[:, trees[place]] & fires[:, sibling]).any()
        both = problem.firing[[trees[place], sibling]]
        given_parent = both[0] / max(problem.firing[parent], both.sum())
        assert fires[fires[:, parent], trees[place]].mean() == pytest.approx(given_parent, abs=0.05)
    sizes = codes[fires[:, 0], 0]
    assert sizes.mean() == pytest.approx(problem.mean[0], abs=0.1)
    assert sizes.std() == pytest.approx(problem.std[0], abs=0.1)


def test_a_seed_gives_the_same_rows_and_a_stream_others() -> None:
    one, other = Hierarchical(seed=1, samples=300), Hierarchical(seed=1, samples=300)
    assert (one.split().held_out.rows == other.split().held_out.rows).all()
    assert one.split().shifted is None
    assert not np.array_equal(one.split().train.rows, Hierarchical(seed=2, samples=300).split().train.rows)
    blocks = list(one.stream(5000, seed=0))
    assert [len(block.rows) for block in blocks] == [4096, 904]
    assert np.allclose(blocks[1].rows, blocks[1].codes @ one.features, atol=1e-5)


def test_more_trees_than_features_are_refused() -> None:
    with pytest.raises(ValueError, match="8 trees have 680 features, but latents=100"):
        Hierarchical(latents=100)
    assert Hierarchical(latents=1, dimensions=2, roots=1, depth=0).features.shape == (1, 2)
