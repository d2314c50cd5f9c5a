"""The LightningDataModule that splits, orders and streams the rows of any source."""

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
from seminmf_lightning.core.discovery import available
from seminmf_lightning.data.bad_rows import SkippedRows, reason
from seminmf_lightning.data.loader import BatchStream
from seminmf_lightning.data.plan import SHUFFLED_ROWS, StreamPlan
from seminmf_lightning.data.sampler import WindowedOrder
from seminmf_lightning.data.sources.base import NO_FETCH, FetchPlan, Source
from seminmf_lightning.data.sources.npy import NpyRows
from seminmf_lightning.data.sources.object_store import ObjectStoreRows
from seminmf_lightning.data.sources.tensor import TensorRows
from seminmf_lightning.data.splits import RowSet, hold_out, scattered_stretches, shuffled

SAMPLE_BYTES = 256 * 2**20
SAMPLE_STRETCHES = 64
"""Number of stretches in a sample of rows that are fetched."""


class ActivationDataModule(lightning.LightningDataModule):
    """Streams activations (n, d) to any number of processes.

    Args:
        source: a :class:`Source`, a tensor, an array, or the path(s) or glob of ``.npy`` or ``.safetensors``
            files, or their URLs in an object store.
        batch_size: rows per batch, of all processes together.  None: 1,024 to 8,192 where the order of rows
            matters to the module, else blocks of about 32 MB.
        val_fraction: share of rows held out, in [0, 1); 0 evaluates on the training rows.
        val_split: ``group`` holds out whole images or documents, ``block`` contiguous rows; ``auto`` takes
            groups where the source knows them.
        order: ``shuffled`` or ``sequential``; ``auto`` shuffles if the order matters to the module.
        sample_rows: training rows that the normaliser and the initial dictionary are computed from.
        on_bad_rows: how to treat rows that hold NaN or Inf: ``error``, or ``skip`` to leave them out of
            training and validation and list them in ``skipped_rows.csv`` in the trainer's
            ``default_root_dir``.  Prediction skips none: its row i is row i of the data.
        max_skipped: share of the rows that may be skipped, in [0, 1].
        seed: seed of the order and of the sample.
        split_seed: seed of the choice of held-out rows, separate so that runs with different seeds are
            evaluated on the same rows.

    Raises:
        TypeError, ValueError: a bad argument; on setup, bad data, naming the file or the row.

    >>> data = ActivationDataModule(torch.arange(40.0).view(20, 2), val_fraction=0.1, batch_size=8)
    >>> data.setup()
    >>> data.n_train_rows, [len(batch.rows) for batch in data.train_dataloader()]
    (18, [8, 8, 2])
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
        self.max_skipped = real_number("data.max_skipped", max_skipped, 0, at_most=1)
        self.seed = whole_number("data.seed", seed, 0)
        self.split_seed = whole_number("data.split_seed", split_seed, 0)
        self.train_rows: RowSet | None = None
        self.val_rows: RowSet | None = None
        self.skipped_rows = SkippedRows(self.source, self.max_skipped) if self.on_bad_rows == "skip" else None
        self._plan = StreamPlan()
        self._train_stream: BatchStream | None = None
        self._fit_begins = False

    # --- Lightning's hooks

    def prepare_data(self) -> None:
        self.source.prepare()

    def setup(self, stage: str | None = None) -> None:
        if self.train_rows is None:
            n = len(self.source)
            self.train_rows, self.val_rows = hold_out(n, self.val_fraction, self.split_seed, self._groups(n))
            self.source.verify_share(*self._rank_and_world())
        self._fit_begins = stage == "fit"

    def teardown(self, stage: str) -> None:
        self.source.prefetch(NO_FETCH)
        if self.skipped_rows is not None and self._rank_and_world()[0] == 0:
            self.skipped_rows.write_list()

    def on_exception(self, exception: BaseException) -> None:
        self.source.prefetch(NO_FETCH)  # rows still being fetched would delay the end
        if self.skipped_rows is not None:
            self.skipped_rows.write_list()

    def train_dataloader(self) -> BatchStream:
        assert self.train_rows is not None
        plan = self._plan
        shuffle = self.order == "shuffled" or (self.order == "auto" and plan.order_matters)
        usual = plan.batch_rows(len(self.train_rows), self.features, converts=self.source.converts)
        stream = self._train_stream = self._stream(
            self.train_rows, self.batch_size or usual, shuffle=shuffle,
            block=plan.block_rows, rows_per_update=plan.rows_per_update,
            any_order=shuffle or not plan.order_matters,
        )  # fmt: skip
        if isinstance(stream.order, WindowedOrder) and stream.order.narrowest < (
            world := self._rank_and_world()[1]
        ):
            warnings.warn(
                f"rows come {stream.order.narrowest} chunks at a time, so that some of the {world} "
                "processes are idle: lower data.chunk_mb or raise data.shuffle_mb",
                stacklevel=2,
            )  # fmt: skip
        return stream

    def val_dataloader(self) -> BatchStream:
        assert self.val_rows is not None
        size = self.batch_size or 4 * SHUFFLED_ROWS
        return self._stream(self.val_rows, size, shuffle=False, any_order=True)

    def predict_dataloader(self) -> BatchStream:
        """Return all rows in order, bad ones too: row i of the predictions is row i of the data."""
        rows, size = RowSet.all(len(self.source)), self.batch_size or 4 * SHUFFLED_ROWS
        return self._stream(rows, size, shuffle=False, skip=False)

    # --- the interface that the module uses: seminmf_lightning.training.data_port.TrainingData

    @property
    def features(self) -> int:
        """The width d of a row."""
        return self.source.features

    @property
    def n_train_rows(self) -> int | None:
        return None if self.train_rows is None else len(self.train_rows)

    @property
    def batch_rows(self) -> int | None:
        return None if self._train_stream is None else self._train_stream.batch_size

    def plan_stream(self, plan: StreamPlan) -> None:
        self._plan = plan

    def begin_epoch(self, epoch: int) -> None:
        if self._train_stream is not None:
            self._train_stream.set_epoch(epoch)

    def sample(self, at_least: int = 0) -> Tensor:
        """Return training rows, the same on every process: all if they are few, otherwise a random set in
        order of row number (from 64 random stretches, where rows are fetched).

        Raises:
            ValueError: a row with NaN or Inf, naming its file and number.
        """
        assert self.train_rows is not None
        if self._fit_begins and self.trainer is not None and self.skipped_rows is not None:
            # Not in setup: Lightning sets trainer.ckpt_path after it.
            folder, resumed = Path(self.trainer.default_root_dir), self.trainer.ckpt_path is not None
            self.skipped_rows.keep_in(folder, *self._rank_and_world(), resumed=resumed)
        self._fit_begins = False
        return self._sample(self.train_rows, self.sample_rows, sort=True)

    def held_out_sample(self, n_rows: int) -> Tensor:
        """Return held-out rows, chosen in the same way, in random order."""
        assert self.val_rows is not None
        return self._sample(self.val_rows, n_rows, sort=False)

    def explain(self, A: Tensor, row_ids: Tensor | None) -> str:
        """Say why the rows of a batch cannot be used, naming the file and the row."""
        assert row_ids is not None
        bad = (~A.isfinite()).any(dim=1).nonzero()[:, 0].cpu()
        if not len(bad):
            return (
                f"rows {int(row_ids.min())} to {int(row_ids.max())} hold finite numbers up to "
                f"{float(A.abs().max()):.3g}, whose squares overflow their type; scale the "
                "data, or store it as float64"
            )
        row = int(row_ids.cpu()[bad].min())
        values = A.cpu()[bad[int(row_ids.cpu()[bad].argmin())]]
        feature = int((~values.isfinite()).nonzero()[0])
        advice = (
            "only training and validation skip rows; repair the file"
            if self.on_bad_rows == "skip"
            else "repair the file, or train without such rows: data.on_bad_rows=skip"
        )
        return (
            f"{self.source.where(row)}: {reason(feature, float(values[feature]))}; every number must be "
            f"finite ({len(bad)} such rows in this batch); {advice}"
        )

    # --- helpers

    def usable(self, A: Tensor, row_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows (m, d) and their numbers (m,) without those that are skipped.

        Raises:
            ValueError: a row holds NaN or Inf and none are skipped; the message names its file and number.
        """
        if self.skipped_rows is not None:
            return self.skipped_rows.drop((A, row_ids, torch.tensor([len(A)])), 0)[:2]
        if not A.isfinite().all():
            raise ValueError(self.explain(A, row_ids))
        return A, row_ids

    def _sample(self, rows: RowSet, size: int, *, sort: bool) -> Tensor:
        n = len(rows)
        count = min(n, max(1, min(size, SAMPLE_BYTES // (4 * self.features))))
        if self.source.chunking is None:
            positions = shuffled(np.arange(count), n, self.seed, 2**31)
        else:  # one request per row would be too many: take stretches of rows
            longest = self.source.chunking.rows
            stretches = scattered_stretches(n, count, SAMPLE_STRETCHES, longest, self.seed, 2**31)
            self.source.prefetch(FetchPlan([tuple(rows.ranges(*one)) for one in stretches], []))
            positions = np.concatenate([np.arange(*one) for one in stretches])
            positions = positions[shuffled(np.arange(len(positions)), len(positions), self.seed, 2**31)]
        row_ids = rows.rows(np.sort(positions) if sort else positions)
        A = self.usable(self.source.read(row_ids), torch.from_numpy(row_ids))[0]
        if not len(A):
            where = self.source.where(int(row_ids[0]))
            raise ValueError(f"all of the {count} rows sampled hold NaN or Inf: {where} and others")
        return A

    def _stream(self, rows: RowSet, batch_size: int, *, skip: bool = True, **options: Any) -> BatchStream:
        rank, world = self._rank_and_world()
        skipped = self.skipped_rows if skip else None
        return BatchStream(
            self.source, rows, batch_size, seed=self.seed, rank=rank, world=world, skipped=skipped, **options
        )

    def _rank_and_world(self) -> tuple[int, int]:
        """Return this process's rank, and the number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _groups(self, n: int) -> np.ndarray | None:
        if self.val_split == "block" or self.val_fraction == 0:
            return None
        groups = self.source.open_groups()
        if groups is None and self.val_split == "group":
            raise ValueError(
                "data.val_split=group, but this source has no groups: give data.groups, or use "
                "val_split=block"
            )
        if groups is not None and groups.shape != (n,):
            raise ValueError(
                f"groups have shape {groups.shape}, but there are {n} rows: give one group per row"
            )
        return groups


def as_source(source: Any) -> Source:
    """Return a :class:`Source` unchanged; wrap arrays and paths in the source that reads them."""
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
    by_suffix: dict[str | None, Any] = {kind.suffix: kind for kind in available(Source).values()}
    return by_suffix.get(Path(paths[0]).suffix.lower(), NpyRows)(paths)
