"""Features in trees, few frequent and most rare: a reduced SynthSAEBench.

Chanin & Garriga-Alonso, "SynthSAEBench", arXiv 2602.14687, 2026.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_array, vstack

from seminmf_lightning.core.checks import whole_number
from seminmf_lightning.suites.planted.base import BLOCK_ROWS, Planted, Split

ZIPF_EXPONENT, MOST, LEAST = 0.5, 0.4, 5e-4
"""Law of the firing probabilities, as published."""


@dataclass
class Hierarchical(Planted):
    """Hierarchical features with Zipfian frequencies, ranked i = 0 ... n - 1 from frequent to rare.

    Numbers are the published ones; sizes are a sixteenth of the published 16,384 features in 768 dimensions
    (dimensions: a sixth).

    - Firing: ``p_i = LEAST + (MOST - LEAST) (w_i - w_last) / (1 - w_last)`` with ``w_i = (i + 1)^-0.5``.
    - Trees: ``roots`` trees, each of ``depth`` levels below its root with ``branching`` children per node,
      on random ranks, breadth first, so that a parent is at least as frequent as its children.  A child
      fires only with its parent, at most one of siblings at a time, with probability ``p_child / p_parent``
      (those of all siblings shrunk in proportion where they sum to more than 1).  The other features fire
      independently.
    - Size of a code: ``max(0, N(mean_i, std_i))``, mean linear from 5 (frequent) to 4 (rare),
      ``std_i = |N(0.5, 0.5)|``.
    - Directions: uniform on the sphere; no noise.

    By default 8 to 11 features fire per row.  Left out: the published low-rank correlation of firings (rank
    25, scale 0.1), the partial orthogonalisation of directions, the offset of the rows, and the scaling of a
    child's code by its parent's; published trees have the first ranks.  There are no shifted rows.

    Raises:
        TypeError, ValueError: a size is not a whole number in range.

    >>> problem = Hierarchical(seed=0, samples=200)
    >>> problem.features.shape, problem.split().train.rows.shape
    ((1024, 128), (100, 128))
    """

    seed: int = 0
    latents: int = 1024
    dimensions: int = 128
    samples: int = 20_000
    roots: int = 8
    branching: int = 4
    depth: int = 3

    features_per_atom: ClassVar[int] = 4

    def __post_init__(self) -> None:
        for name in ("latents", "dimensions", "roots", "branching"):
            whole_number(name, getattr(self, name), 1)
        for name, least in (("seed", 0), ("samples", 2), ("depth", 0)):
            whole_number(name, getattr(self, name), least)
        n, rng = self.latents, np.random.default_rng(self.seed)
        in_trees = sum(self._levels)
        if in_trees > n:
            raise ValueError(f"{self.roots} trees have {in_trees:,} features, but latents={n:,}; lower roots")
        features = rng.normal(size=(n, self.dimensions))
        self.features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
        weight = np.arange(1, n + 1) ** -ZIPF_EXPONENT
        share = (weight - weight[-1]) / (1 - weight[-1]) if n > 1 else weight
        self.firing = LEAST + (MOST - LEAST) * share
        self.mean, self.std = np.linspace(5, 4, n), np.abs(rng.normal(0.5, 0.5, n))
        self.in_trees = np.sort(rng.choice(n, in_trees, replace=False))

    @property
    def _levels(self) -> list[int]:
        """Features of each level of the trees."""
        return [self.roots * self.branching**level for level in range(self.depth + 1)]

    def split(self) -> Split:
        rng, half = np.random.default_rng([self.seed, 1]), self.samples // 2
        train, held_out = self.draw(half, rng), self.draw(self.samples - half, rng)
        return Split(self.sample(train), self.sample(held_out), None)

    def draw(self, rows: int, rng: np.random.Generator) -> csr_array:
        blocks = [self._block(min(BLOCK_ROWS, rows - start), rng) for start in range(0, rows, BLOCK_ROWS)]
        return csr_array(vstack(blocks, format="csr"))

    def _block(self, rows: int, rng: np.random.Generator) -> csr_array:
        fires = rng.random((rows, self.latents)) < self.firing
        levels = np.split(self.in_trees, np.cumsum(self._levels)[:-1])
        for parents, below in pairwise(levels):
            children = below.reshape(len(parents), self.branching)
            share = self.firing[children] / self.firing[parents, None]
            share /= np.maximum(share.sum(axis=1, keepdims=True), 1)
            # One number per parent chooses among its children, or none of them.
            upper = share.cumsum(axis=1)
            number = rng.random((rows, len(parents), 1))
            chosen = (upper - share <= number) & (number < upper) & fires[:, parents, None]
            fires[:, below] = chosen.reshape(rows, -1)
        row, feature = fires.nonzero()
        size = np.maximum(rng.normal(self.mean[feature], self.std[feature]), 0).astype(np.float32)
        return csr_array((size, (row, feature)), shape=fires.shape)
