"""A callback for tests: from some batch on, something goes wrong."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor

from seminmf_lightning import SemiNMFModule
from seminmf_lightning.core.constraints import Constraint

STEPS = {
    "broken": lambda D: torch.full_like(D, torch.nan),
    "huge": lambda D: D * 1e6,
    "negative": lambda D: D - 0.5,
    "vanishing": lambda D: D * 0.3,
}


class Spoil(lightning.Callback):
    """From ``batch`` of ``epoch`` on the solver returns what ``how`` makes of a dictionary; ``infinite``: the
    sums are."""

    def __init__(self, how: str, batch: int, epoch: int = 0) -> None:
        self.how, self.at = how, (epoch, batch)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SemiNMFModule) and pl_module.learner is not None
        if (trainer.current_epoch, batch_idx) != self.at:
            return
        if self.how == "infinite":
            pl_module.learner.total.tensors()["gram"][0, 1] = torch.inf
            return

        def step(D: Tensor, S: Tensor, P: Tensor, *, constraint: Constraint, bounded: bool) -> Tensor:
            return STEPS[self.how](D)

        object.__setattr__(pl_module.recipe.solver, "step", step)  # it is frozen
