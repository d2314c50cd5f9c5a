"""One short training run with checkpoints of our own, for tests of data and of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint

from seminmf_lightning import ActivationDataModule, SemiNMFModule
from seminmf_lightning.training.checkpoints import AtomicCheckpointIO


def fit(
    data: ActivationDataModule,
    root: Path,
    *callbacks: lightning.Callback,
    ckpt_path: str | None = None,
    **recipe: Any,
):
    module = SemiNMFModule(**({"nb_concepts": 8} | recipe))
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", devices=1, logger=False, default_root_dir=root,
        callbacks=list(callbacks),
        plugins=[AtomicCheckpointIO()], enable_checkpointing=any(isinstance(one,
        ModelCheckpoint) for one in callbacks),
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    return module
