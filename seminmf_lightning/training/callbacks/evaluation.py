"""Compute every metric of a finished dictionary during validation."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torchmetrics import MetricCollection

from seminmf_lightning.metrics import Fitted, dictionary_metrics
from seminmf_lightning.training.data_port import as_batch
from seminmf_lightning.training.module import SemiNMFModule


class Evaluation(lightning.Callback):
    """Collects :func:`~seminmf_lightning.metrics.dictionary_metrics` over all processes; the module has its
    own five metrics.

    Args:
        other: a dictionary (k2, d) to compare with.
        other_sign_is_free: whether its atoms are matched by the absolute cosine.

    Attributes:
        metrics: by name, once ``trainer.validate`` has ended; NaN where undefined.
    """

    def __init__(self, other: torch.Tensor | None = None, other_sign_is_free: bool = False) -> None:
        self.other, self.other_sign_is_free = other, other_sign_is_free
        self._collection: MetricCollection | None = None
        self.metrics: dict[str, Any] = {}

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, SemiNMFModule)
        recipe, D = pl_module.recipe, pl_module.dictionary.detach()
        self._collection = dictionary_metrics(
            Fitted(
                D, pl_module.normalizer, recipe.codes_are_linear, self.other,
                sign_is_free=recipe.constraint.sign_is_free,
                other_sign_is_free=self.other_sign_is_free,
            )
        )  # fmt: skip

    @torch.no_grad()
    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        assert isinstance(pl_module, SemiNMFModule) and self._collection is not None
        Z = outputs["codes"]
        A_hat = pl_module.decode(Z.double())  # float32 would round away the error beside a large mean
        self._collection.update(A=as_batch(batch).rows, A_hat=A_hat, Z=Z)

    def on_validation_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        assert self._collection is not None
        self.metrics = self._collection.compute()
