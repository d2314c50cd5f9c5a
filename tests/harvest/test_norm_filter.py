"""Rows far above the median norm are dropped or clipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harvests import job, text_recipe

from seminmf_lightning.data import HarvestedRows
from seminmf_lightning.harvest import HarvestRecipe


def test_a_layer_of_zeros_mostly_keeps_its_rows(tmp_path: Path) -> None:
    x = np.zeros((30, 4), dtype=np.float32)
    x[::10] = 1.0
    np.save(tmp_path / "x.npy", x)
    inputs = {"name": "tensors", "path": str(tmp_path / "x.npy")}
    for name in ("none", "drop"):
        recipe = HarvestRecipe(
            {"name": "callable", "target": "tiny_networks:nothing"}, inputs, "act", norm_filter=name
        )
        manifest = job(recipe, tmp_path / name).run()
        assert manifest is not None
        assert manifest["layers"]["act"]["rows"] == 30


def test_norms_far_above_the_median_are_dropped_or_clipped(bert: Path, corpus: Path, tmp_path: Path) -> None:
    layer = "encoder.layer.1.intermediate"

    def run(name: str) -> dict[str, Any]:
        recipe = text_recipe(bert, corpus, layers=layer, norm_filter=name, norm_factor=1.1)
        manifest = job(recipe, tmp_path / name).run()
        assert manifest is not None
        return manifest["layers"][layer] | {"limit": manifest["plan"]["norm_limits"][layer]}

    whole, dropped, clipped = run("none"), run("drop"), run("clip")
    assert dropped["filtered"] == clipped["filtered"] > 0 == whole["filtered"]
    assert dropped["rows"] == whole["rows"] - dropped["filtered"]
    assert clipped["rows"] == whole["rows"]
    norms = {
        name: HarvestedRows(str(tmp_path / name)).read_range(0, 10**6).norm(dim=1)
        for name in ("none", "drop", "clip")
    }
    assert norms["drop"].max() <= dropped["limit"] and norms["clip"].max() <= clipped["limit"] * (1 + 1e-6)
    assert int((norms["none"] > whole["limit"]).sum()) == dropped["filtered"]
    assert clipped["mean_row_norm"] == pytest.approx(float(norms["clip"].mean()), rel=1e-5)
    mean = HarvestedRows(str(tmp_path / "drop")).read_range(0, 10**6).mean(dim=0)
    assert torch.allclose(torch.tensor(dropped["mean"]), mean, atol=1e-5)
