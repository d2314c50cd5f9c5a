"""What the module asks of its data: ours, or any loader of rows.

Batches are rows (n, d), or a tuple that begins with them.  Our data module adds row numbers, which errors
then name, and the sizes of minibatches; where it is absent the module makes do with the first batches of the
loader.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from seminmf_lightning.training.distributed import gather_rows

SAMPLE_ROWS = 16_384
"""Rows looked at before training where no data module gives a sample."""
TUNING_ROWS = 1024
"""Held-out rows that a penalty is tuned on."""


class TrainerData:
    """The data of one trainer."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.module: Any = getattr(trainer, "datamodule", None)

    @property
    def features(self) -> int:
        if hasattr(self.module, "features"):
            return int(self.module.features)
        return int(next(self._first_rows()).shape[1])

    def sample(self, at_least: int) -> Tensor:
        """Training rows, the same on every process."""
        if hasattr(self.module, "sample"):
            return self.module.sample()
        parts: list[Tensor] = []
        for A in self._first_rows():
            parts.append(A)
            if sum(map(len, parts)) >= max(SAMPLE_ROWS, at_least):
                break
        return gather_rows(torch.cat(parts))

    def held_out(self) -> Tensor | None:
        """Rows that are not trained on, where there are any."""
        return self.module.held_out_sample(TUNING_ROWS) if hasattr(self.module, "held_out_sample") else None

    @property
    def training_rows(self) -> int | None:
        rows = getattr(self.module, "train_rows", None)
        return None if rows is None else len(rows)

    @property
    def batches(self) -> int:
        """Batches of a pass that hold data; further ones are our data module's empty ones."""
        total = self.trainer.num_training_batches
        return int(min(getattr(self.trainer.train_dataloader, "data_batches", total), total))

    @property
    def _ours(self) -> bool:
        return hasattr(self.trainer.train_dataloader, "minibatch")

    @property
    def batch_rows(self) -> int | None:
        """Rows of a training batch, all processes together, where that is known."""
        return self.trainer.train_dataloader.batch_size if self._ours else None

    def minibatches(self, batch: Any) -> list[Any]:
        """The parts of a training batch after each of which the dictionary is updated."""
        if not self._ours or len(batch[2]) < 2:
            return [batch]
        sizes = batch[2].tolist()
        return list(zip(batch[0].split(sizes), batch[1].split(sizes), strict=True))

    def explain(self, A: Tensor, numbers: Tensor | None) -> str:
        """What is wrong with rows that cannot be used."""
        if numbers is not None and hasattr(self.module, "explain"):
            return self.module.explain(A, numbers)
        bad = (~A.isfinite()).any(dim=1).nonzero()[:, 0]
        row = (
            f"row {int(bad[0])} of the batch holds NaN or Inf"
            if len(bad)
            else "the numbers of the batch are too large"
        )
        return f"{row}; every number must be finite"

    def _first_rows(self) -> Iterator[Tensor]:
        loops = (self.trainer.fit_loop, self.trainer.validate_loop, self.trainer.predict_loop)
        source = next(loop._data_source for loop in loops if loop._data_source.is_defined())
        for batch in source.dataloader():
            yield unpack(batch)[0]


def unpack(batch: Any) -> tuple[Tensor, Tensor | None]:
    """Rows, and their numbers where the loader gives any."""
    if isinstance(batch, Tensor):
        return real_rows(batch), None
    if isinstance(batch, list | tuple) and batch and isinstance(batch[0], Tensor):
        numbers = batch[1] if len(batch) > 1 and isinstance(batch[1], Tensor) else None
        return real_rows(batch[0]), numbers
    raise TypeError(
        f"a batch must be a tensor (n, d) or a tuple that begins with one, got {type(batch).__name__}"
    )


def real_rows(A: Tensor) -> Tensor:
    """Rows as float32 or float64."""
    if A.ndim != 2:
        raise ValueError(f"expected rows (n, d), found a {A.ndim}-D tensor {tuple(A.shape)}")
    return A if A.dtype in (torch.float32, torch.float64) else A.float()
