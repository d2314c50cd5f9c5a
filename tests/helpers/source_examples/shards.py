"""Rows of a harvest from a network that returns its input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from seminmf_lightning.data.sources.shards import HarvestedRows
from seminmf_lightning.harvest import HarvestJob, HarvestRecipe, Store


def examples(folder: Path, rows: torch.Tensor) -> Iterator[HarvestedRows]:
    np.save(folder / "x.npy", rows.numpy())
    model = {"name": "callable", "target": "torch.nn:Sequential"}
    recipe = HarvestRecipe(model, {"name": "tensors", "path": str(folder / "x.npy")}, "0")
    recipe.loaded.network.append(torch.nn.Identity())
    harvester = recipe.harvester(torch.device("cpu"))
    settings, store = recipe.settings(harvester.layers), Store(folder / "store")
    HarvestJob(harvester, store, settings, dtype="float32", shard_mb=0.01, tell=lambda text: None).run()
    yield HarvestedRows(str(folder / "store"))
    yield HarvestedRows(str(folder / "store"), layer="0", verify=True)
