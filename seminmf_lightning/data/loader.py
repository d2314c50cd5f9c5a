"""Stream the batches of one process, in an order that does not depend on the number of processes.

Every process walks the same global batches and reads its own share of each
(:mod:`~seminmf_lightning.data.sampler`): all processes count the same batches, a share may be an
empty (0, d) batch, and the position (epoch, batch) is the same on all processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from seminmf_lightning.data.bad_rows import SkippedRows
from seminmf_lightning.data.plan import Batch
from seminmf_lightning.data.sampler import Order, Processes, ScatteredOrder, WindowedOrder
from seminmf_lightning.data.sources.base import Source
from seminmf_lightning.data.splits import RowSet


class BatchStream:
    """Sized, resumable iterable of :class:`~seminmf_lightning.data.plan.Batch`, without worker processes,
    which would slow a memory map down.

    Args:
        batch_size: rows per batch, of all processes together.
        block: the share of each process starts at a multiple of this many rows.
        rows_per_update: rows between two updates of the dictionary, of all processes together.  Each process
            reads its share of every update, so updates depend neither on the batch size nor on the number of
            processes.
        any_order: let a source that fetches its rows choose their order; otherwise all sources use the same
            one.
        skipped: drops bad rows from batches and updates; the other rows stay in the same batch and update.

    >>> from seminmf_lightning.data import TensorRows
    >>> stream = BatchStream(TensorRows(torch.arange(5.0)[:, None]), RowSet.all(5), 2, shuffle=False, seed=0)
    >>> [batch.row_ids.tolist() for batch in stream]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self, source: Source, rows: RowSet, batch_size: int, *, shuffle: bool, seed: int, rank: int = 0,
        world: int = 1, block: int = 1, rows_per_update: int | None = None, any_order: bool = False,
        skipped: SkippedRows | None = None,
    ) -> None:  # fmt: skip
        self.source, self.rows, self.batch_size, self.skipped = source, rows, batch_size, skipped
        per_update = min(rows_per_update or batch_size, batch_size)
        processes = Processes(rank, world, block, per_update)
        self.order: Order = (
            WindowedOrder(rows, batch_size, source.chunking, processes, shuffle=shuffle, seed=seed)
            if any_order and source.chunking is not None
            else ScatteredOrder(rows, batch_size, processes, shuffle=shuffle, seed=seed)
        )
        # A position within an epoch is valid only with these settings; checkpoints hold them under these
        # names.
        self.layout = {
            "rows": len(rows), "data.batch_size": batch_size, "rows between updates": per_update,
            "seed": seed, "shuffled": shuffle, "fetched in chunks": isinstance(self.order, WindowedOrder),
        }  # fmt: skip
        self.epoch, self.batch = 0, 0

    def __len__(self) -> int:
        return self.order.batches

    def __iter__(self) -> Iterator[Batch]:
        if self.batch >= len(self):  # resumed from the end of an epoch: start the next one
            self.epoch, self.batch = self.epoch + 1, 0
        while self.batch < len(self):
            self.batch += 1
            rows = self._read(self.batch - 1)
            yield Batch(*(rows if self.skipped is None else self.skipped.drop(rows, self.epoch + 1)))
        self.epoch, self.batch = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "batch": self.batch, "batches": len(self), "layout": self.layout}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume at a saved position.

        Raises:
            ValueError: the position is within an epoch, and the rows or batches have changed since: rows
                would be lost or read twice.
        """
        before = state.get("layout", self.layout)
        changes = [
            f"{name} was {before.get(name)}, is {now}"
            for name, now in self.layout.items()
            if before.get(name) != now
        ]  # fmt: skip
        if changes and 0 < state["batch"] < state["batches"]:
            raise ValueError(
                f"the checkpoint was written within an epoch (batch {state['batch']}) that these settings "
                f"cannot continue: {'; '.join(changes)}. Resume with the data settings of the run; only the "
                "number of processes may change"
            )
        self.epoch, self.batch = state["epoch"], state["batch"]

    def set_epoch(self, epoch: int) -> None:
        """Start ``epoch``, unless it is in progress.  A checkpoint written between two epochs restores the
        position through the trainer's epoch count, not through :meth:`load_state_dict`."""
        if epoch > self.epoch:
            self.epoch, self.batch = epoch, 0

    def _read(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        share = self.order.share(self.epoch, batch)
        self.source.prefetch(self.order.fetch_plan(self.epoch, batch))
        sizes = torch.from_numpy(share.sizes)
        if share.positions is not None:
            row_ids = self.rows.rows(share.positions)
            return self.source.read(row_ids), torch.from_numpy(row_ids), sizes
        ranges = [one for start, stop in share.ranges for one in self.rows.ranges(start, stop)] or [(0, 0)]
        if len(ranges) == 1:
            return self.source.read_range(*ranges[0]), torch.arange(*ranges[0]), sizes
        rows = [self.source.read_range(*one) for one in ranges]
        return torch.cat(rows), torch.cat([torch.arange(*one) for one in ranges]), sizes
