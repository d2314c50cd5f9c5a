"""Rows that are fetched from a folder: in small chunks, in one chunk, and in the other byte order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from seminmf_lightning.data.sources.object_store import ObjectStoreRows


def examples(folder: Path, rows: torch.Tensor) -> Iterator[ObjectStoreRows]:
    cache = str(folder / "cache")
    for index, part in enumerate(rows.split(170)):
        np.save(folder / f"little{index}.npy", part.numpy())
        np.save(folder / f"big{index}.npy", part.numpy().astype(">f4"))
    yield ObjectStoreRows(f"file://{folder}/little*.npy", cache_dir=cache, chunk_mb=0.005, shuffle_mb=0.02)
    yield ObjectStoreRows(str(folder / "little*.npy"), cache_dir=cache)
    yield ObjectStoreRows(str(folder / "big*.npy"), cache_dir=cache, chunk_mb=0.005, shuffle_mb=0.02)
