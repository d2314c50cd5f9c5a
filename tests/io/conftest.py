"""A trained run and a harvest store, to be tampered with."""

from __future__ import annotations

from pathlib import Path

import lightning
import numpy as np
import pytest
import torch

from seminmf_lightning import SemiNMF, SemiNMFModule
from seminmf_lightning.data import ActivationDataModule
from seminmf_lightning.harvest import HarvestJob, HarvestRecipe, Store


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, a dictionary and the rows of a small run."""
    folder = tmp_path_factory.mktemp("trained")
    A = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    np.save(folder / "rows.npy", A.numpy())
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(SemiNMFModule(4, l1_penalty=0.1), ActivationDataModule(A))
    trainer.save_checkpoint(folder / "last.ckpt")
    model = SemiNMF(4, "hals")
    model.fit(A)
    model.save(folder / "dictionary.safetensors")
    return folder


@pytest.fixture(scope="module")
def harvested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store."""
    folder = tmp_path_factory.mktemp("harvested")
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32))
    recipe = HarvestRecipe(
        {"name": "callable", "target": "torch.nn:Sequential"},
        {"name": "tensors", "path": str(folder / "x.npy")},
        "0",
    )
    recipe.loaded.network.append(torch.nn.Identity())
    harvester = recipe.harvester(torch.device("cpu"))
    store = Store(folder / "store")
    job = HarvestJob(
        harvester, store, recipe.settings(harvester.layers), dtype="float32", shard_mb=0.0005, tell=print
    )
    assert job.run() is not None
    return folder / "store"
