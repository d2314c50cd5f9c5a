"""Rows in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from seminmf_lightning.data.sources.tensor import TensorRows


def examples(folder: Path, rows: torch.Tensor) -> Iterator[TensorRows]:
    yield TensorRows(rows, groups=np.arange(len(rows)) // 7)
    yield TensorRows(rows.numpy())
