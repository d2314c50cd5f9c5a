"""Stream batches of rows that are harvested while training runs.

An epoch takes the examples in a new random order, a *window* of them at a time: their rows are harvested,
shuffled and split into batches.  The number of batches per epoch is fixed beforehand, and the rows of a
window are spread evenly over its batches: every row comes once, all processes count the same batches, and a
resumed epoch harvests again only the window it was in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.commands import command
from seminmf_lightning.data.plan import Batch
from seminmf_lightning.data.splits import RowSet, shuffled

if TYPE_CHECKING:
    from seminmf_lightning.data.live import HarvestDataModule


class LiveStream:
    """Sized, resumable iterable of batches; see the head of this file.

    ``batch_size`` is the approximate number of rows per batch, of all processes together.  Each batch is
    made of updates of about ``rows_per_update`` rows, as in
    :class:`~seminmf_lightning.data.loader.BatchStream`.
    """

    def __init__(
        self, data: HarvestDataModule, examples: RowSet, batch_size: int, *,
        shuffle: bool, rows_per_update: int | None = None,
    ) -> None:  # fmt: skip
        self.data, self.examples, self.batch_size, self.shuffle = data, examples, batch_size, shuffle
        self.updates = max(1, round(batch_size / min(rows_per_update or batch_size, batch_size)))
        each = data.window_examples
        self.windows = [(start, min(start + each, len(examples))) for start in range(0, len(examples), each)]
        self.batches = [
            max(1, round((stop - start) * data.rows_per_example / batch_size)) for start, stop in self.windows
        ]
        self.epoch, self.batch = 0, 0

    def __len__(self) -> int:
        return sum(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        if self.batch >= len(self):  # resumed from the end of an epoch: start the next one
            self.epoch, self.batch = self.epoch + 1, 0
        first = 0
        for window, count in enumerate(self.batches):
            if self.batch < first + count:
                values, numbers, order = self._window(window)
                for number in range(self.batch - first, count):
                    self.batch += 1
                    yield self._cut(values, numbers, order, number, count)
            first += count
        self.epoch, self.batch = self.epoch + 1, 0
        if self.shuffle:
            self.data.forget_sample()

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "batch": self.batch, "world": self.data.world}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume at a saved position.

        Raises:
            ValueError: the position is within an epoch, and the number of processes has changed: rows would
                be read twice.
        """
        if 0 < state["batch"] < len(self) and state["world"] != self.data.world:
            raise ValueError(
                "data=harvest resumes within an epoch only with as many processes as before, "
                f"{state['world']}; found {self.data.world}.  For runs that are resized, "
                f"harvest to disk with {command('harvest')}"
            )
        self.epoch, self.batch = state["epoch"], state["batch"]

    def set_epoch(self, epoch: int) -> None:
        """Start ``epoch``, unless it is in progress."""
        if epoch > self.epoch:
            self.epoch, self.batch = epoch, 0

    def _window(self, window: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the rows of this process's share of a window, the example of each, and the order to use
        them in."""
        positions = np.arange(*self.windows[window])
        if self.shuffle:
            positions = shuffled(positions, len(self.examples), self.data.seed, self.epoch)
        own = self.examples.rows(positions)[self.data.rank :: self.data.world]
        values, numbers = self.data.rows_of(own.tolist(), first_epoch=self.shuffle and self.epoch == 0)
        if not self.shuffle:
            return values, numbers, torch.arange(len(values), device=values.device)
        key = [self.data.seed, self.epoch, window, self.data.rank]
        seed = int(np.random.SeedSequence(key).generate_state(1)[0])
        order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
        return values, numbers, order.to(values.device)

    def _cut(self, values: Tensor, numbers: Tensor, order: Tensor, batch: int, batches: int) -> Batch:
        start, stop = len(order) * batch // batches, len(order) * (batch + 1) // batches
        chosen = order[start:stop]
        sizes = np.diff(np.linspace(0, stop - start, self.updates + 1).astype(np.int64))
        return Batch(values[chosen], numbers[chosen], torch.from_numpy(sizes))
