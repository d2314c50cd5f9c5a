"""Rows in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from seminmf_lightning.core.rows import real_matrix
from seminmf_lightning.data.shard import Shard, array_shard
from seminmf_lightning.data.sources.base import Source


@dataclass
class TensorRows(Source):
    """A tensor or array (n, d), in memory or memory-mapped; it is never written to.

    >>> TensorRows(np.eye(3)).read(np.array([2, 0])).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """

    activations: Tensor | np.ndarray
    groups: np.ndarray | Tensor | None = None
    """The image or document of each row (n,)."""

    def open(self) -> list[Shard]:
        if isinstance(self.activations, np.ndarray):
            return [array_shard("activations", self.activations)]
        return [Shard("activations", real_matrix("activations", self.activations).cpu())]

    def open_groups(self) -> np.ndarray | None:
        return None if self.groups is None else np.asarray(self.groups)
