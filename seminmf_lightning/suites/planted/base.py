"""The interface of planted problems: rows made from known features, which a dictionary should find.

``Y = Z A``, with unit features A and sparse codes Z >= 0.

Legend:  Y (N, d) rows   Z (N, n) true codes   A (n, d) true features
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np
from scipy.sparse import csr_array

BLOCK_ROWS = 4096


class Sample(NamedTuple):
    """Rows and the codes that made them."""

    codes: csr_array  # Z (N, n) float32
    rows: np.ndarray  # Y (N, d) float32


class Split(NamedTuple):
    """Rows to learn from, others of the same law, and, where the problem has them, rows of a shifted law."""

    train: Sample
    held_out: Sample
    shifted: Sample | None


class Planted(ABC):
    """True features and the law of their codes."""

    features: np.ndarray
    """A (n, d) float32, unit rows."""
    features_per_atom: ClassVar[int] = 1
    """True features per atom of the dictionaries that are usually tried."""

    @abstractmethod
    def split(self) -> Split:
        """Return the rows of the benchmark, the same for the same seed."""

    @abstractmethod
    def draw(self, rows: int, rng: np.random.Generator) -> csr_array:
        """Return fresh codes (rows, n) of the training law."""

    def sample(self, codes: csr_array) -> Sample:
        """Return ``codes`` with their rows."""
        return Sample(codes, np.asarray(codes @ self.features, dtype=np.float32))

    def stream(self, rows: int, seed: int) -> Iterator[Sample]:
        """Yield ``rows`` fresh rows of the training law in blocks, so that memory does not grow with them.

        >>> from seminmf_lightning.suites.planted.compositional import Compositional
        >>> [block.rows.shape for block in Compositional(latents=50, active=3).stream(5000, seed=1)]
        [(4096, 17), (904, 17)]
        """
        rng = np.random.default_rng(seed)
        for start in range(0, rows, BLOCK_ROWS):
            yield self.sample(self.draw(min(BLOCK_ROWS, rows - start), rng))
