"""The published out-of-distribution problem, row by row."""

from __future__ import annotations

import numpy as np
import pytest

from seminmf_lightning.suites.planted.compositional import Compositional


def published(seed: int, n: int, k: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features (n, d), training and shifted codes, by the published calls in their order."""
    rng = np.random.RandomState(seed)
    columns = rng.normal(0, 1, (int(np.ceil(2 * k * np.log(n / k))), n))

    def draw(count: int, shifted: bool) -> np.ndarray:
        Z = np.zeros((count, n), np.float32)
        for row in Z:
            if shifted:
                support = [0, *rng.choice(np.arange(n - n // 2, n), k - 1, replace=False)]
            elif rng.binomial(1, 0.5):
                support = [0, *rng.choice(np.arange(1, n - n // 2), k - 1, replace=False)]
            else:
                support = list(rng.choice(np.arange(1, n), k, replace=False))
            row[support] = rng.uniform(0, 1, k)
        return Z

    usual = draw(rows, False)
    return (columns / np.linalg.norm(columns, axis=0)).T, usual, draw(rows // 2, True)


@pytest.mark.parametrize(("seed", "latents", "active"), [(0, 60, 4), (7, 61, 3)])
def test_seeds_agree_with_the_published_generator(seed: int, latents: int, active: int) -> None:
    problem = Compositional(seed, latents, active, samples=41)
    features, usual, shifted = published(seed, latents, active, 41)
    split = problem.split()
    assert np.allclose(problem.features, features, atol=1e-7)
    assert (split.train.codes.toarray() == usual[:20]).all()
    assert (split.held_out.codes.toarray() == usual[20:]).all()
    assert split.shifted is not None and (split.shifted.codes.toarray() == shifted).all()
    assert np.allclose(split.train.rows, usual[:20] @ features, atol=1e-6)
    assert (problem.split().train.rows == split.train.rows).all()


def test_fresh_rows_have_the_training_law() -> None:
    problem = Compositional(seed=0, latents=41, active=4)
    blocks = list(problem.stream(20_000, seed=1))
    codes = np.concatenate([block.codes.toarray() for block in blocks])
    assert np.allclose(blocks[0].rows, codes[: len(blocks[0].rows)] @ problem.features, atol=1e-6)
    assert ((codes != 0).sum(axis=1) == 4).all()
    assert codes.max() < 1 and codes[codes != 0].mean() == pytest.approx(0.5, abs=0.01)
    with_0, second = codes[:, 0] != 0, slice(21, 41)
    assert with_0.mean() == pytest.approx(0.5, abs=0.02)
    assert not codes[with_0][:, second].any()
    assert (codes[with_0][:, 1:21] != 0).mean(axis=0) == pytest.approx(np.full(20, 3 / 20), abs=0.02)
    assert (codes[~with_0][:, 1:] != 0).mean(axis=0) == pytest.approx(np.full(40, 4 / 40), abs=0.02)
    again = next(iter(problem.stream(10, seed=1)))
    assert not np.array_equal(again.rows, next(iter(problem.stream(10, seed=2))).rows)


def test_sizes_that_cannot_be_are_named() -> None:
    with pytest.raises(ValueError, match=r"active=10 must be at most .* = 9"):
        Compositional(latents=20, active=10)
    with pytest.raises(ValueError, match="active"):
        Compositional(active=1)
    with pytest.raises(TypeError, match="latents"):
        Compositional(latents=2.5)  # type: ignore[arg-type]
