"""The interface of every format, and the features that all of them write.

Other tools know no codes of both signs: a concept with such codes becomes two features, ``max(z, 0)`` with
its atom and ``max(-z, 0)`` with the negative of it.

Legend:  A (n, d) raw rows   Z (n, k) codes   F (n, m) features, m = k or 2 k   W (m, d) atoms in data units
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.estimator import SemiNMF


@dataclass(frozen=True)
class Content:
    """What there is to write: a finished run, and rows."""

    model: SemiNMF
    """With its own encoder."""
    sample: Tensor
    """(s, d) training rows."""
    held_out: Tensor
    """(h, d) other rows; if none are held out, rows of the training."""
    holds_out: bool
    n_rows: int
    read: Callable[[np.ndarray], Tensor]
    """Raw rows (m, d) by number."""
    blocks: Callable[[], Iterator[tuple[Tensor, Tensor]]]
    """All usable rows (m, d) in order, with their numbers (m,)."""
    harvest: tuple[str, str] | None = None
    """Folder and layer of the harvest that knows the token of each row."""

    @property
    def halves(self) -> bool:
        """Whether a concept is two features."""
        return not self.model.recipe.constraint.nonnegative_codes

    @property
    def atoms(self) -> Tensor:
        """W (m, d): ``a ~ f W + mean``."""
        D = self.model.get_dictionary() * self.model.normalizer.scale
        return torch.cat([D, -D]) if self.halves else D

    @property
    def mean(self) -> Tensor:
        """(d,) in data units."""
        mean = self.model.normalizer.mean
        return self.atoms.new_zeros(self.atoms.shape[1]) if mean is None else mean.to(self.atoms)

    def features(self, A: Tensor) -> Tensor:
        """Return the exact features (n, m) of raw rows A (n, d)."""
        Z = self.model.encode(A)
        return torch.cat([Z.clamp(min=0), (-Z).clamp(min=0)], dim=1) if self.halves else Z

    def origin(self) -> tuple[str, str]:
        """Return the folder and the layer of the harvest.

        Raises:
            ValueError: the rows are of none.
        """
        if self.harvest is None:
            raise ValueError(
                "this format shows tokens, which only rows of a harvest know: give data=shards "
                "data.path=HARVEST"
            )
        return self.harvest


@dataclass(frozen=True, kw_only=True)
class Format(ABC):
    """Writes a dictionary in the form of another tool; its fields are its settings."""

    @abstractmethod
    def write(self, folder: Path, content: Content) -> list[str]:
        """Write all files into an empty folder, and return what is worth saying about them, in lines.

        Raises:
            ValueError: the run or its rows lack what the tool needs.
        """
