"""A callback for tests that run several processes."""

from __future__ import annotations

import lightning
import torch


class SaveEveryRank(lightning.Callback):
    """Write the dictionary of each process to ``<folder>/rank<number>.pt``."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        torch.save(pl_module.dictionary.detach(), f"{self.folder}/rank{trainer.global_rank}.pt")
