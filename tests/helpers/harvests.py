"""Small harvests of the networks in tiny_networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from seminmf_lightning.harvest import HarvestJob, HarvestRecipe, Store

CPU = torch.device("cpu")


def text_recipe(model: Path, corpus: Path, **options: Any) -> HarvestRecipe:
    settings = {"layers": "encoder.layer.1", "batch_size": 4} | options
    return HarvestRecipe(
        {"name": "transformers", "path": str(model)}, {"name": "text", "path": str(corpus)}, **settings
    )


def image_recipe(folder: Path, target: str = "tiny_networks:convolutions", **options: Any) -> HarvestRecipe:
    settings = {"layers": "relu@1", "batch_size": 3} | options
    return HarvestRecipe(
        {"name": "callable", "target": target}, {"name": "images", "path": str(folder)}, **settings
    )


def job(recipe: HarvestRecipe, folder: Path, **options: Any) -> HarvestJob:
    harvester = recipe.harvester(CPU)
    dtype = options.pop("dtype", "float32")
    settings = recipe.settings(harvester.layers) | {"dtype": dtype}
    return HarvestJob(harvester, Store(folder), settings, dtype=dtype, tell=lambda text: None, **options)


def small_store(folder: Path) -> Path:
    """A store of some rows of a tiny network."""
    np.save(folder / "x.npy", np.random.default_rng(0).standard_normal((60, 3, 24, 24)).astype(np.float32))
    recipe = HarvestRecipe(
        {"name": "callable", "target": "tiny_networks:convolutions"},
        {"name": "tensors", "path": str(folder / "x.npy")},
        "relu@1",
    )
    harvester = recipe.harvester(torch.device("cpu"))
    job = HarvestJob(
        harvester, Store(folder / "store"), recipe.settings(harvester.layers), tell=lambda text: None
    )
    assert job.run() is not None
    return folder / "store"
