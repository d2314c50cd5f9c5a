"""Rows in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.data.sources.base import Shard, Source


@dataclass
class TensorRows(Source):
    """A tensor or array (n, d) that is already in memory; it is read, never written."""

    activations: Tensor | np.ndarray
    groups: np.ndarray | Tensor | None = None

    def open(self) -> list[Shard]:
        rows = self.activations
        if isinstance(rows, np.ndarray):
            if rows.dtype.kind not in "fiub":
                raise ValueError(f"activations: expected float or integer numbers, found dtype {rows.dtype}")
            rows = torch.from_numpy(np.require(rows, requirements="W") if not rows.flags.writeable else rows)
        if not isinstance(rows, Tensor):
            raise TypeError(f"activations must be a tensor or an ndarray, got {type(rows).__name__}")
        return [Shard("activations", rows.detach().cpu())]

    def open_groups(self) -> np.ndarray | None:
        return None if self.groups is None else np.asarray(self.groups)
