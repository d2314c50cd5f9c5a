"""The LightningDataModule: any source, split, ordered and streamed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.checks import one_of, real_number, whole_number
from seminmf_lightning.data.bad_rows import SkippedRows, reason
from seminmf_lightning.data.loader import BatchStream
from seminmf_lightning.data.sampler import WindowedOrder
from seminmf_lightning.data.sources.base import NO_FETCH, FetchPlan, Source
from seminmf_lightning.data.sources.npy import NpyRows
from seminmf_lightning.data.sources.object_store import ObjectStoreRows
from seminmf_lightning.data.sources.safetensors import SafetensorsRows
from seminmf_lightning.data.sources.tensor import TensorRows
from seminmf_lightning.data.splits import RowSet, hold_out, scattered_stretches, shuffled

SAMPLE_BYTES = 256 * 2**20
BLOCK_BYTES = (
    64 * 2**20
)  # where order does not matter: blocks large enough for the matrix product to run at full speed
COPY_BYTES = (
    24 * 2**20
)  # of blocks that are copies: larger ones get fresh memory each time, at a seventh of the speed
SAMPLE_STRETCHES = 64  # of a sample of rows that are fetched
SHUFFLED_ROWS = 1024
WHOLE_ROWS = 2048  # a large batch is a multiple of this, so that processes can share it in whole blocks
LEAST_BATCHES = 8  # a pass: enough to see the loss fall


class ActivationDataModule(lightning.LightningDataModule):
    """Streams activations (n, d) to any number of processes.

    Args:
        source: a :class:`Source`; or a tensor, an array, or the path(s) or glob of ``.npy`` or
            ``.safetensors`` files, or their URLs in an object store.
        batch_size: rows a step, of all processes together.  None: 1,024 where the order of rows matters to
            the module, else blocks of about 32 MB.
        val_fraction: share of rows held out, in [0, 1); 0 evaluates on the training rows.
        val_split: ``group`` holds out whole images or documents, ``block`` contiguous rows; ``auto`` takes
            groups where the source knows them.
        order: ``shuffled`` or ``sequential``; ``auto`` asks the module whether order matters to it.
        sample_rows: rows of the training set that the normaliser and the starting dictionary are made from.
        on_bad_rows: of rows that hold NaN or Inf: ``error``, or ``skip`` to leave them out of training and
            validation, and list them in ``skipped_rows.csv`` in the trainer's ``default_root_dir``.  Of
            prediction, whose row i is row i of the data, nothing is left out.
        max_skipped: share of the rows that may be left out, in [0, 1].
        seed: of the order and the sample.
        split_seed: of the choice of held-out rows; not the same, so that runs which differ in their seed are
            measured on the same rows.

    Raises:
        TypeError, ValueError: a bad argument; on setup, bad data, naming the file or the row.

    The module may have ``order_matters`` (bool), ``extra_batches`` (int, empty batches after each pass),
    ``block_rows`` (int, rows of a batch that must stay in one process together) and ``minibatch_rows`` (int
    or None, rows of all processes after which it does something: see :class:`BatchStream`).
    """

    def __init__(
        self,
        source: Source | Tensor | np.ndarray | str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        batch_size: int | None = None,
        val_fraction: float = 0.1,
        val_split: str = "auto",
        order: str = "auto",
        sample_rows: int = 16_384,
        on_bad_rows: str = "error",
        max_skipped: float = 0.01,
        seed: int = 0,
        split_seed: int = 0,
    ) -> None:
        super().__init__()
        self.source = as_source(source)
        self.batch_size = None if batch_size is None else whole_number("data.batch_size", batch_size, 1)
        self.val_fraction = real_number("data.val_fraction", val_fraction, 0, below=1)
        self.val_split = one_of("data.val_split", val_split, ("auto", "block", "group"))
        self.order = one_of("data.order", order, ("auto", "shuffled", "sequential"))
        self.sample_rows = whole_number("data.sample_rows", sample_rows, 1)
        self.on_bad_rows = one_of("data.on_bad_rows", on_bad_rows, ("error", "skip"))
        self.max_skipped = real_number("data.max_skipped", max_skipped, 0, below=1.0000001)
        self.seed = whole_number("data.seed", seed, 0)
        self.split_seed = whole_number("data.split_seed", split_seed, 0)
        self.train_rows: RowSet | None = None
        self.val_rows: RowSet | None = None
        self.skipped_rows = SkippedRows(self.source, self.max_skipped) if self.on_bad_rows == "skip" else None

    def prepare_data(self) -> None:
        self.source.prepare()

    def setup(self, stage: str | None = None) -> None:
        if self.train_rows is None:
            n = len(self.source)
            self.train_rows, self.val_rows = hold_out(n, self.val_fraction, self.split_seed, self._groups(n))
            self.source.verify_share(*self._place())
        if stage == "fit" and self.skipped_rows is not None and self.trainer is not None:
            self.skipped_rows.keep_in(
                Path(self.trainer.default_root_dir),
                *self._place(),
                resumed=self.trainer.ckpt_path is not None,
            )

    def teardown(self, stage: str) -> None:
        self.source.prefetch(NO_FETCH)
        if self.skipped_rows is not None and self._place()[0] == 0:
            self.skipped_rows.write_list()

    def on_exception(self, exception: BaseException) -> None:
        self.source.prefetch(NO_FETCH)  # what is being fetched would hold up the end
        if self.skipped_rows is not None:
            self.skipped_rows.write_list()

    @property
    def features(self) -> int:
        """d."""
        return self.source.features

    def train_dataloader(self) -> BatchStream:
        assert self.train_rows is not None
        module = self._module()
        order_matters = getattr(module, "order_matters", True)
        shuffle = self.order == "shuffled" or (self.order == "auto" and order_matters)
        size = self.batch_size or self._usual_batch_size(order_matters)
        extra = getattr(module, "extra_batches", 0)
        stream = self._stream(
            self.train_rows, size, shuffle=shuffle, extra=extra, block=getattr(module, "block_rows", 1),
            minibatch=getattr(module, "minibatch_rows", None), any_order=shuffle or not order_matters,
        )  # fmt: skip
        if isinstance(stream.order, WindowedOrder) and stream.order.narrowest < (world := self._place()[1]):
            warnings.warn(
                f"rows come {stream.order.narrowest} chunks at a time, so that some of the {world} processes are idle: lower "
                "data.chunk_mb or raise data.shuffle_mb",
                stacklevel=2,
            )
        return stream

    def val_dataloader(self) -> BatchStream:
        assert self.val_rows is not None
        return self._stream(
            self.val_rows, self.batch_size or 4 * SHUFFLED_ROWS, shuffle=False, any_order=True
        )

    def predict_dataloader(self) -> BatchStream:
        """All rows, in order, bad ones too: row i of what is predicted is row i of the data."""
        return self._stream(
            RowSet.all(len(self.source)), self.batch_size or 4 * SHUFFLED_ROWS, shuffle=False, whole=True
        )

    def sample(self) -> Tensor:
        """Training rows, the same on every process: all if they are few, else a random set in order of row
        number (of 64 random stretches, where rows are fetched).

        Raises:
            ValueError: a row with NaN or Inf, naming its file and number.
        """
        assert self.train_rows is not None
        return self._sample(self.train_rows, self.sample_rows, sort=True)

    def held_out_sample(self, rows: int) -> Tensor:
        """The same of the held-out rows, in random order."""
        assert self.val_rows is not None
        return self._sample(self.val_rows, rows, sort=False)

    def _sample(self, rows: RowSet, wanted: int, *, sort: bool) -> Tensor:
        n = len(rows)
        count = min(n, max(1, min(wanted, SAMPLE_BYTES // (4 * self.features))))
        if self.source.chunking is None:
            positions = shuffled(np.arange(count), n, self.seed, 2**31)
        else:  # a request for each row would be too many: rows of some places
            stretches = scattered_stretches(
                n, count, SAMPLE_STRETCHES, self.source.chunking.rows, self.seed, 2**31
            )
            self.source.prefetch(FetchPlan([tuple(rows.ranges(*one)) for one in stretches], []))
            positions = np.concatenate([np.arange(*one) for one in stretches])
            positions = positions[shuffled(np.arange(len(positions)), len(positions), self.seed, 2**31)]
        numbers = rows.rows(np.sort(positions) if sort else positions)
        A = self.usable(self.source.read(numbers), torch.from_numpy(numbers))[0]
        if not len(A):
            raise ValueError(
                f"all of {count} rows looked at hold NaN or Inf: {self.source.where(int(numbers[0]))} and others"
            )
        return A

    def usable(self, A: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (m, d) and their numbers (m,) without those that are skipped.

        Raises:
            ValueError: a row with NaN or Inf, and they are not skipped; the message names its file and
                number.
        """
        if self.skipped_rows is not None:
            return self.skipped_rows.drop((A, numbers, torch.tensor([len(A)])), 0)[:2]
        if not A.isfinite().all():
            raise ValueError(self.explain(A, numbers))
        return A, numbers

    def explain(self, A: Tensor, numbers: Tensor) -> str:
        """What is wrong with a batch that cannot be used, in words that lead to the row."""
        bad = (~A.isfinite()).any(dim=1).nonzero()[:, 0].cpu()
        if not len(bad):
            return (
                f"rows {int(numbers.min())} to {int(numbers.max())} hold finite numbers up to {float(A.abs().max()):.3g}, "
                "whose squares leave the range of their type; scale the data, or store it as float64"
            )
        row = int(numbers.cpu()[bad].min())
        values = A.cpu()[bad[int(numbers.cpu()[bad].argmin())]]
        feature = int((~values.isfinite()).nonzero()[0])
        advice = (
            "rows are left out of training and validation alone, repair the file"
            if self.on_bad_rows == "skip"
            else "repair the file, or train without such rows: data.on_bad_rows=skip"
        )
        return (
            f"{self.source.where(row)}: {reason(feature, float(values[feature]))}; every number must be finite "
            f"({len(bad)} such rows in this batch); {advice}"
        )

    def _module(self) -> Any:
        return self.trainer.lightning_module if self.trainer is not None else None

    def _usual_batch_size(self, order_matters: bool) -> int:
        if order_matters:
            return SHUFFLED_ROWS
        assert self.train_rows is not None
        block = min(65_536, (COPY_BYTES if self.source.converts else BLOCK_BYTES) // (4 * self.features))
        rows = max(SHUFFLED_ROWS, min(block, -(-len(self.train_rows) // LEAST_BATCHES)))
        return rows if rows < WHOLE_ROWS else rows // WHOLE_ROWS * WHOLE_ROWS

    def _stream(
        self, rows: RowSet, size: int, *, shuffle: bool, extra: int = 0, block: int = 1, minibatch: int | None = None,
        any_order: bool = False, whole: bool = False,
    ) -> BatchStream:  # fmt: skip
        rank, world = self._place()
        return BatchStream(
            self.source, rows, size, shuffle=shuffle, seed=self.seed, rank=rank, world=world, extra=extra, block=block,
            minibatch=minibatch, any_order=any_order, skipped=None if whole else self.skipped_rows,
        )  # fmt: skip

    def _place(self) -> tuple[int, int]:
        """This process's number, and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _groups(self, n: int) -> np.ndarray | None:
        if self.val_split == "block" or self.val_fraction == 0:
            return None
        groups = self.source.open_groups()
        if groups is None and self.val_split == "group":
            raise ValueError(
                "data.val_split=group, but this source has no groups: give data.groups, or use val_split=block"
            )
        if groups is not None and groups.shape != (n,):
            raise ValueError(
                f"groups have shape {groups.shape}, but there are {n} rows: one group number a row is needed"
            )
        return groups


def as_source(source: Any) -> Source:
    """A :class:`Source` as it is; arrays and paths wrapped in theirs."""
    if isinstance(source, Source):
        return source
    if isinstance(source, Tensor | np.ndarray):
        return TensorRows(source)
    paths = [source] if isinstance(source, str | os.PathLike) else source
    if (
        not isinstance(paths, Sequence)
        or not paths
        or not all(isinstance(path, str | os.PathLike) for path in paths)
    ):
        raise TypeError(f"source must be a Source, a tensor, an array, or paths; got {type(source).__name__}")
    if any("://" in str(path) for path in paths):
        return ObjectStoreRows([str(path) for path in paths])
    return SafetensorsRows(paths) if str(paths[0]).endswith(".safetensors") else NpyRows(paths)
