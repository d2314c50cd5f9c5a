"""A data set of random texts, saved to disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tiny_networks as tiny


def overrides(folder: Path) -> list[str]:
    pytest.importorskip("transformers")
    _save(folder, seed=0)
    return [f"inputs.path={folder}/set", "inputs.column=words", "model=transformers",
            f"model.path={tiny.bert(folder / 'bert')}", "layers=[encoder.layer.0]"]  # fmt: skip


def edit(folder: Path) -> None:
    shutil.rmtree(folder / "set")
    _save(folder, seed=1)


def _save(folder: Path, seed: int) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"words": tiny.texts(4, seed)}).save_to_disk(folder / "set")
