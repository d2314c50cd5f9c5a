"""Rows in one .npy file, and in four."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from seminmf_lightning.data.sources.npy import NpyRows


def examples(folder: Path, rows: torch.Tensor) -> Iterator[NpyRows]:
    np.save(folder / "a.npy", rows.numpy())
    yield NpyRows(str(folder / "a.npy"), groups=None)
    for index, part in enumerate(rows.split(170)):
        np.save(folder / f"part{index}.npy", part.numpy())
    yield NpyRows(str(folder / "part*.npy"))
