"""What happens beside training: pictures for TensorBoard, the portable file at the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from seminmf_lightning.dictionary_file import save_dictionary
from seminmf_lightning.training.module import SemiNMFModule


class ProgressBar(RichProgressBar):
    """Lightning's bar with the figures that matter: loss, optimality gap, rows a second."""

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        shown = {
            name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"
        }
        return {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in shown.items()}


class Histograms(lightning.Callback):
    """Histograms of the codes (first validation batch) and of the atom norms, at each validation during
    training."""

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if batch_idx == 0 and not trainer.sanity_checking and outputs["codes"].numel():
            for writer in tensorboards(trainer):
                writer.add_histogram("val/codes", outputs["codes"], pl_module.global_step)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, SemiNMFModule)
        for writer in tensorboards(trainer):
            writer.add_histogram(
                "val/atom_norms", pl_module.dictionary.detach().norm(dim=1), pl_module.global_step
            )


class SaveDictionary(lightning.Callback):
    """Write ``dictionary.safetensors`` when training ends, however it ends.

    Args:
        path: the file.
        config: what goes into its metadata beside the module's own recipe.
    """

    def __init__(self, path: str, config: dict[str, Any] | None = None) -> None:
        self.path, self.config = path, config or {}

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, SemiNMFModule)
        if trainer.is_global_zero:
            config = self.config | pl_module.plain_recipe()
            save_dictionary(self.path, pl_module.dictionary, pl_module.normalizer, config, pl_module.effort)


def tensorboards(trainer: lightning.Trainer) -> Iterator[SummaryWriter]:
    """The writers of a trainer's TensorBoard loggers, in the first process alone."""
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                yield logger.experiment
