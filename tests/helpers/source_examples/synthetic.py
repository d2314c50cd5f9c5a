"""A planted problem's own rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from seminmf_lightning.data.sources.synthetic import PlantedRows


def examples(folder: Path, rows: torch.Tensor) -> Iterator[PlantedRows]:
    yield PlantedRows(rows=500, features=12, concepts=5)
