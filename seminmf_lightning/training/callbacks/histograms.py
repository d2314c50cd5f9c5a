"""Log TensorBoard histograms of codes and atoms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from seminmf_lightning.training.module import SemiNMFModule


class Histograms(lightning.Callback):
    """Histograms of the codes (of the first validation batch) and of the atom norms, at each validation
    during training."""

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if batch_idx == 0 and not trainer.sanity_checking and outputs["codes"].numel():
            for writer in tensorboard_writers(trainer):
                writer.add_histogram("val/codes", outputs["codes"], pl_module.global_step)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, SemiNMFModule)
        norms = pl_module.dictionary.detach().norm(dim=1)
        for writer in tensorboard_writers(trainer):
            writer.add_histogram("val/atom_norms", norms, pl_module.global_step)


def tensorboard_writers(trainer: lightning.Trainer) -> Iterator[SummaryWriter]:
    """Yield the writers of a trainer's TensorBoard loggers, only in the first process."""
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                yield logger.experiment
