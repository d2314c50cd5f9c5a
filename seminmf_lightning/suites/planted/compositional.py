"""Sparse codes whose co-occurrences are new at test time.

Barin Pacela, Joshi, Camacho, Lacoste-Julien & Klindt, "Stop Probing, Start Coding", arXiv 2603.28744, 2026.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from seminmf_lightning.core.checks import whole_number
from seminmf_lightning.suites.planted.base import Planted, Split


@dataclass
class Compositional(Planted):
    """``active`` codes per row, uniform in (0, 1), of Gaussian features with ``2 k log(n / k)`` entries.

    With probability 1/2 a training row holds latent 0 and others of the first half, else any but latent 0.
    Shifted rows hold latent 0 with others of the second half, which training never shows together.
    :meth:`split` asks numpy's legacy generator in the published order, so that a seed gives the published
    rows: half of ``samples`` to train on, half held out, and as many shifted ones.

    Raises:
        TypeError, ValueError: a size is not a whole number in range.

    >>> train, held_out, shifted = Compositional(seed=0, latents=100, active=5, samples=40).split()
    >>> train.rows.shape, held_out.codes.shape
    ((20, 30), (20, 100))
    >>> int(shifted.codes[:, [0]].count_nonzero()), int(shifted.codes[:, 1:50].count_nonzero())
    (20, 0)
    """

    seed: int = 0
    latents: int = 500
    active: int = 10
    samples: int = 5000

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("latents", 1), ("active", 2), ("samples", 2)):
            whole_number(name, getattr(self, name), least)
        if self.active > (self.latents - 1) // 2:
            raise ValueError(
                f"active={self.active} must be at most (latents - 1) / 2 = {(self.latents - 1) // 2}: "
                "rows take their latents from one half; lower active or raise latents"
            )
        self.features = self._features(np.random.RandomState(self.seed))

    def _features(self, rng: np.random.RandomState) -> np.ndarray:
        width = math.ceil(2 * self.active * math.log(self.latents / self.active))
        columns = rng.normal(0, 1, (width, self.latents))
        return np.ascontiguousarray((columns / np.linalg.norm(columns, axis=0)).T, np.float32)

    def split(self) -> Split:
        rng = np.random.RandomState(self.seed)
        self._features(rng)  # the generator goes on from where the features left it
        half = self.samples // 2
        codes, shifted = self._published(self.samples, rng, False), self._published(half, rng, True)
        return Split(self.sample(codes[:half]), self.sample(codes[half:]), self.sample(shifted))

    def _published(self, rows: int, rng: np.random.RandomState, shifted: bool) -> csr_array:
        """Draw row by row: a shuffle takes as many numbers as it needs, so rows cannot be drawn together."""
        n, k = self.latents, self.active
        half = n - n // 2
        first, second, any_but_0 = np.arange(1, half), np.arange(half, n), np.arange(1, n)
        chosen, sizes = np.zeros((rows, k), np.int64), np.empty((rows, k), np.float32)
        for row in range(rows):
            if shifted:
                chosen[row, 1:] = rng.choice(second, k - 1, replace=False)
            elif rng.binomial(n=1, p=0.5):
                chosen[row, 1:] = rng.choice(first, k - 1, replace=False)
            else:
                chosen[row] = rng.choice(any_but_0, k, replace=False)
            sizes[row] = rng.uniform(0, 1, k)
        return self._matrix(chosen, sizes)

    def draw(self, rows: int, rng: np.random.Generator) -> csr_array:
        n, k = self.latents, self.active
        # The k largest of uniform keys are a uniform choice; a key of 2 forces a latent in, -1 out.
        keys = rng.random((rows, n), dtype=np.float32)
        with_0 = rng.random(rows) < 0.5
        keys[:, 0] = np.where(with_0, 2, -1)
        keys[with_0, n - n // 2 :] = -1
        chosen = np.argpartition(keys, n - k, axis=1)[:, n - k :]
        return self._matrix(chosen, rng.random((rows, k), dtype=np.float32))

    def _matrix(self, chosen: np.ndarray, sizes: np.ndarray) -> csr_array:
        starts = np.arange(0, chosen.size + 1, self.active)
        matrix = csr_array((sizes.ravel(), chosen.ravel(), starts), shape=(len(chosen), self.latents))
        matrix.sort_indices()
        return matrix
