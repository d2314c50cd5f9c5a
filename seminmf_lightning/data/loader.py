"""Batches of one process, in an order that does not depend on how many processes there are.

Every process walks the same global batches and reads its own share of each
(:mod:`~seminmf_lightning.data.sampler`): counts are equal everywhere, a share may be an empty (0, d) batch,
and the position is one pair of numbers, the same on all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from seminmf_lightning.data.bad_rows import SkippedRows
from seminmf_lightning.data.sampler import Order, ScatteredOrder, WindowedOrder
from seminmf_lightning.data.sources.base import Source
from seminmf_lightning.data.splits import RowSet

Batch = tuple[Tensor, Tensor, Tensor]
"""Rows (m, d), their numbers in the source (m,) int64, and how many of them belong to each minibatch (b,)
int64."""


class BatchStream:
    """An iterable for the trainer: ``len``, a resumable position, no worker processes (they slow a memory map
    down).

    ``batch_size`` counts the rows of all processes together.  ``extra`` empty batches follow the data in
    every pass, for modules that go on working without it.  Slices begin at multiples of ``block`` rows.  What
    ``skipped`` leaves out is missing from batches and minibatches, whose bounds stay where they are.

    A batch is made of minibatches of ``minibatch`` rows of all processes together, each process having its
    slice of each of
    them: what a module does after every minibatch depends neither on the batch size nor on the number of
        processes.

    ``any_order`` leaves the order to a source that fetches its rows; without it, it is that of all other
    sources.
    """

    def __init__(
        self, source: Source, rows: RowSet, batch_size: int, *,
        shuffle: bool, seed: int, rank: int = 0, world: int = 1, extra: int = 0, block: int = 1,
        minibatch: int | None = None, any_order: bool = False, skipped: SkippedRows | None = None,
    ) -> None:  # fmt: skip
        self.source, self.rows, self.batch_size = source, rows, batch_size
        self.extra, self.minibatch = extra, min(minibatch or batch_size, batch_size)
        place: dict[str, Any] = {"rank": rank, "world": world, "block": block, "minibatch": self.minibatch}
        self.order: Order = (
            WindowedOrder(rows, batch_size, source.chunking, shuffle=shuffle, seed=seed, **place)
            if any_order and source.chunking is not None
            else ScatteredOrder(rows, batch_size, shuffle=shuffle, seed=seed, **place)
        )
        self.data_batches = self.order.batches
        self.layout = {
            "rows": len(rows), "data.batch_size": batch_size, "rows between updates": self.minibatch, "seed": seed,
            "shuffled": shuffle, "fetched in chunks": isinstance(self.order, WindowedOrder),
        }  # fmt: skip
        """What a position within a pass means something with."""
        self.skipped = skipped
        self.epoch, self.batch = 0, 0

    def __len__(self) -> int:
        return self.data_batches + self.extra

    def __iter__(self) -> Iterator[Batch]:
        if self.batch >= len(self):  # a checkpoint taken at the very end of a pass: go on with the next
            self.epoch, self.batch = self.epoch + 1, 0
        while self.batch < len(self):
            self.batch += 1
            batch = self._read(self.batch - 1)
            yield batch if self.skipped is None else self.skipped.drop(batch, self.epoch + 1)
        self.epoch, self.batch = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "batch": self.batch, "batches": len(self), "layout": self.layout}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at a position.

        Raises:
            ValueError: it is within a pass over other rows, or over these in other batches: rows would be
                lost or come twice.
        """
        before = state.get("layout", self.layout)
        other = [
            f"{name} was {before.get(name)}, is {mine}"
            for name, mine in self.layout.items()
            if before.get(name) != mine
        ]
        if other and 0 < state["batch"] < state["batches"]:
            raise ValueError(
                f"the checkpoint was taken within a pass (batch {state['batch']}) that this one does not go on with: "
                f"{'; '.join(other)}. Resume with the data settings of the run; only the number of processes may change"
            )
        self.epoch, self.batch = state["epoch"], state["batch"]

    def set_epoch(self, epoch: int) -> None:
        """Begin pass ``epoch``, unless it is the one under way.  A checkpoint taken between two passes does
        not give the position back through :meth:`load_state_dict`; the trainer's count of passes does."""
        if epoch > self.epoch:
            self.epoch, self.batch = epoch, 0

    def _read(self, batch: int) -> Batch:
        share = self.order.share(self.epoch, batch)
        self.source.prefetch(self.order.wanted(self.epoch, batch))
        sizes = torch.from_numpy(share.sizes)
        if share.positions is not None:
            drawn = self.rows.rows(share.positions)
            return self.source.read(drawn), torch.from_numpy(drawn), sizes
        ranges = [one for start, stop in share.stretches for one in self.rows.ranges(start, stop)]
        if len(ranges) == 1:
            return self.source.read_range(*ranges[0]), torch.arange(*ranges[0]), sizes
        rows = [self.source.read_range(*one) for one in ranges]
        numbers = [torch.arange(*one) for one in ranges]
        return (
            torch.cat(rows) if rows else self.source.read_range(0, 0),
            torch.cat(numbers) if numbers else torch.arange(0),
            sizes,
        )
