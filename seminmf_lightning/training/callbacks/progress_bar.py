"""The progress bar of a run."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.callbacks import RichProgressBar


class ProgressBar(RichProgressBar):
    """Lightning's bar with the metrics that matter: loss, optimality gap, rows per second."""

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return {
            name: f"{value:.4g}" if isinstance(value, float) else value for name, value in metrics.items()
        }
