"""The interface between module and data, for our data modules and for any loader of rows.

Batches are rows (n, d), or a tuple or list that begins with them.  Our data modules add row numbers, which
errors then name, and the sizes of updates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from seminmf_lightning.core.rows import real_matrix
from seminmf_lightning.data.plan import Batch, StreamPlan
from seminmf_lightning.training.distributed import gather

SAMPLE_ROWS = 16_384
"""Rows of a foreign loader from which the normaliser and the initial dictionary are computed."""


@runtime_checkable
class TrainingData(Protocol):
    """The data of one trainer.  Your own data module is used directly if it has these members."""

    @property
    def features(self) -> int:
        """d."""

    @property
    def n_train_rows(self) -> int | None:
        """Training rows per epoch, of all processes together; None if unknown."""

    @property
    def batch_rows(self) -> int | None:
        """Rows of a training batch, all processes together; None if unknown."""

    def plan_stream(self, plan: StreamPlan) -> None:
        """Receive what the module needs, before the first loader is made."""

    def begin_epoch(self, epoch: int) -> None:
        """Move to the start of ``epoch``, unless it is in progress."""

    def sample(self, at_least: int) -> Tensor:
        """Training rows (m, d), the same on every process; ``at_least`` is what the initial dictionary
        needs."""

    def held_out_sample(self, n_rows: int) -> Tensor | None:
        """Rows that are not trained on, the same on every process; None where there are none."""

    def explain(self, A: Tensor, row_ids: Tensor | None) -> str:
        """Return why the rows of a batch cannot be used."""


def data_of(trainer: lightning.Trainer) -> TrainingData:
    """Return the trainer's data module if it has our interface, else an adapter of the trainer's loader."""
    module = trainer.datamodule  # type: ignore[attr-defined]
    return module if isinstance(module, TrainingData) else LoaderData(trainer)


class LoaderData:
    """:class:`TrainingData` on a foreign loader, such as a ``torch.utils.data.DataLoader``.

    A loader that can be iterated only once is replaced by a :class:`ReplayLoader`, so that no row is lost.
    """

    n_train_rows = None
    batch_rows = None

    def __init__(self, trainer: lightning.Trainer) -> None:
        loops = (trainer.fit_loop, trainer.validate_loop, trainer.test_loop, trainer.predict_loop)
        source = next((loop._data_source for loop in loops if loop._data_source.is_defined()), None)
        if source is None:
            raise ValueError(
                "no data: give the trainer a data module or a DataLoader, trainer.fit(module, data)"
            )
        loader = source.dataloader()
        if isinstance(loader, list | tuple | Mapping | Tensor | np.ndarray):
            raise TypeError(
                f"expected one loader of batches (n, d), got a {type(loader).__name__}: give "
                "ActivationDataModule(rows), or DataLoader(batches, batch_size=None) for a list of batches"
            )
        if not can_restart(loader):
            loader = source.instance = loader if isinstance(loader, ReplayLoader) else ReplayLoader(loader)
        self.loader = loader

    @property
    def features(self) -> int:
        return int(next(self._first_rows()).shape[1])

    def plan_stream(self, plan: StreamPlan) -> None:
        """A foreign loader has an order and batches of its own."""

    def begin_epoch(self, epoch: int) -> None:
        """Lightning does this for the samplers of a DataLoader."""

    def sample(self, at_least: int) -> Tensor:
        parts: list[Tensor] = []
        for A in self._first_rows():
            if not A.isfinite().all():
                raise ValueError(self.explain(A, None))
            parts.append(A)
            if sum(map(len, parts)) >= max(SAMPLE_ROWS, at_least):
                break
        return gather(torch.cat(parts))[0]

    def held_out_sample(self, n_rows: int) -> Tensor | None:
        return None

    def explain(self, A: Tensor, row_ids: Tensor | None) -> str:
        bad = (~A.isfinite()).any(dim=1).nonzero()[:, 0]
        problem = f"row {int(bad[0])} of the batch holds NaN or Inf" if len(bad) else "its squares overflow"
        return f"a batch of the training loader cannot be used: {problem}; every number must be finite"

    def _first_rows(self) -> Iterator[Tensor]:
        batches = self.loader.peek() if isinstance(self.loader, ReplayLoader) else iter(self.loader)
        features = None
        for batch in batches:
            rows = as_batch(batch, features).rows
            features = rows.shape[1]
            yield rows
        if features is None:
            loader = self.loader.loader if isinstance(self.loader, ReplayLoader) else self.loader
            raise ValueError(f"the loader ({type(loader).__name__}) gives no batch")


class ReplayLoader:
    """A loader that can be iterated only once, read ahead without losing a row.

    Batches that :meth:`peek` has read come first in the first epoch.

    >>> loader = ReplayLoader(iter([1, 2, 3]))
    >>> next(loader.peek()), list(loader)
    (1, [1, 2, 3])
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self._ahead: list[Any] = []
        self._first_epoch: Iterator[Any] | None = None
        self._epochs = 0

    def peek(self) -> Iterator[Any]:
        """Yield the first batches, each time from the very first."""
        yield from list(self._ahead)
        if self._first_epoch is None:
            self._first_epoch = iter(self.loader)
        for batch in self._first_epoch:
            self._ahead.append(batch)
            yield batch

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        self._epochs += 1
        if self._epochs == 1:
            first, rest = self._ahead, iter(self.loader) if self._first_epoch is None else self._first_epoch
            self._ahead, self._first_epoch = [], None
            while first:
                yield first.pop(0)
            yield from rest
            return
        batch = None
        for batch in self.loader:
            yield batch
        if batch is None:
            raise ValueError(
                f"the loader ({type(self.loader).__name__}) gives no batch in epoch {self._epochs}: it "
                "can be walked only once; give a loader whose every iter() starts again, or set "
                "trainer.max_epochs=1"
            )


@runtime_checkable
class Resumable(Protocol):
    """A loader whose position the trainer stores."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def can_restart(loader: Any) -> bool:
    """Whether every ``iter(loader)`` certainly starts again."""
    if isinstance(loader, DataLoader):
        return not isinstance(loader.dataset, IterableDataset) or isinstance(loader, Resumable)
    return isinstance(loader, Sequence | Resumable)


def as_batch(batch: Any, features: int | None = None) -> Batch:
    """Convert what any loader gives to a batch as our data modules give it.

    Raises:
        TypeError, ValueError: it does not begin with a tensor (n, d) of real numbers, or d is not
            ``features``.

    >>> as_batch([torch.ones(3, 2, dtype=torch.int32), torch.zeros(3)]).rows.dtype
    torch.float32
    """
    if not isinstance(batch, Batch):
        if isinstance(batch, list | tuple) and batch:
            batch = batch[0]
        if not isinstance(batch, Tensor):
            raise TypeError(
                f"a batch must be a tensor (n, d) or a tuple that begins with one, got {type(batch).__name__}"
            )
        batch = Batch(batch)
    rows = real_rows(batch.rows)
    if features not in (None, rows.shape[1]):
        raise ValueError(f"a batch has rows of {rows.shape[1]} features, expected {features} as before")
    return batch._replace(rows=rows)


def real_rows(A: Tensor) -> Tensor:
    """Return rows as float32 or float64.

    Raises:
        TypeError, ValueError: A is not (n, d), or holds no plain real numbers.
    """
    if A.ndim != 2:
        raise ValueError(f"expected rows (n, d), found a {A.ndim}-D tensor {tuple(A.shape)}")
    A = real_matrix("a batch", A)
    return A if A.dtype in (torch.float32, torch.float64) else A.float()
