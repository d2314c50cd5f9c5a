"""Small harvests of the networks in tiny_networks."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import ROOT
from hydra import compose, initialize_config_dir

from seminmf_lightning.harvest import Harvester, HarvestJob, HarvestRecipe, Store
from seminmf_lightning.harvest.row_selection import Rows

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


def all_rows(harvester: Harvester) -> dict[str, Rows]:
    parts: dict[str, list[Rows]] = {}
    for pool in harvester.pools(harvester.read(range(len(harvester.inputs)))):
        found = harvester.harvest(pool)
        for layer, rows in found.rows.items() if found else ():
            parts.setdefault(str(layer), []).append(rows)
    return {layer: Rows.join(found) for layer, found in parts.items()}


def needs(library: str) -> None:
    """Skip unless the library imports: next to the CPU wheel of torch, torchvision does not, nor timm, which
    imports it."""
    try:
        import_module(library)
    except (ImportError, RuntimeError) as error:
        pytest.skip(
            f"{library} does not import next to this torch; .ci/run has an environment of its own for it "
            f"({error})"
        )


def config(*overrides: str) -> Any:
    """Compose the configuration of the harvest command."""
    with initialize_config_dir(str(ROOT / "configs" / "harvest"), version_base="1.3"):
        return compose("harvest", overrides=list(overrides), return_hydra_config=True)


def configured(*overrides: str) -> HarvestRecipe:
    """Build the recipe that the harvest command makes of these overrides."""
    from seminmf_lightning.cli.harvest import make_recipe

    return make_recipe(config(*overrides))
