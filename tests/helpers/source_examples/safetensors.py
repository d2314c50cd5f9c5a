"""Rows in four .safetensors files, with groups in each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from seminmf_lightning.data.sources.safetensors import SafetensorsRows


def examples(folder: Path, rows: torch.Tensor) -> Iterator[SafetensorsRows]:
    for index, part in enumerate(rows.split(170)):
        tensors = {"activations": part.clone(), "group": torch.arange(len(part)) // 10}
        save_file(tensors, folder / f"{index}.safetensors")
    yield SafetensorsRows(str(folder))
