"""Rows of a data set of Hugging Face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_networks as tiny
from harvests import CPU, all_rows

from seminmf_lightning.core.discovery import build
from seminmf_lightning.harvest import HarvestRecipe
from seminmf_lightning.harvest.inputs import Inputs


def test_a_dataset_of_hugging_face(bert: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"words": tiny.texts(12)}).save_to_disk(tmp_path / "set")
    inputs = {"name": "hf_dataset", "path": str(tmp_path / "set"), "column": "words"}
    recipe = HarvestRecipe({"name": "transformers", "path": str(bert)}, inputs, "encoder.layer.1")
    assert np.unique(all_rows(recipe.harvester(CPU))["encoder.layer.1"].origin["example"]).tolist() == list(
        range(12)
    )
    with pytest.raises(ValueError, match="no column 'text'; it has words"):
        len(build(Inputs, inputs | {"column": "text"}))
