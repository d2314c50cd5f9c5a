"""Leave out rows that hold NaN or Inf; list each of them once."""

from __future__ import annotations

import csv
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.data.sources.base import Source
from seminmf_lightning.io.atomic import full_disk_explained, whole_file

LIST = "skipped_rows.csv"
LISTED = 10_000
"""Most rows in the list; further ones are only counted."""
RECORD = np.dtype([("row", "<i8"), ("epoch", "<i4"), ("feature", "<i4"), ("value", "<f4")])


class SkippedRows:
    """The rows of a source that are left out.

    Given a folder, each process appends its new bad rows to a file of its own before the batch is used: a
    kill loses nothing, a resumed run knows the rows of all processes, and :meth:`write_list` makes one list.
    Memory grows with the number of rows left out.

    Args:
        source: where the rows come from.
        max_share: the share of its rows that may be left out.
    """

    def __init__(self, source: Source, max_share: float) -> None:
        self.source, self.max_share = source, max_share
        self.folder: Path | None = None
        self._part: Path | None = None
        self._row_ids: set[int] = set()

    def keep_in(self, folder: Path, rank: int, world: int, *, resumed: bool) -> None:
        """Keep the records of all processes in ``folder``, and continue those of a resumed run."""
        self.folder, self._part = folder, _part(folder, rank)
        self._row_ids.clear()
        folder.mkdir(parents=True, exist_ok=True)
        if resumed:
            self._row_ids |= set(self.records()["row"].tolist())
            if self._part.exists():  # a kill or a full disk may have left half a record
                os.truncate(self._part, self._part.stat().st_size // RECORD.itemsize * RECORD.itemsize)
            return
        self._part.write_bytes(b"")
        if rank == 0:  # files of an earlier run that failed
            own = {_part(folder, process) for process in range(world)}
            for file in (folder / LIST, *(part for part in self._parts() if part not in own)):
                file.unlink(missing_ok=True)

    def drop(self, batch: tuple[Tensor, Tensor, Tensor], epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return a batch (rows, their numbers, sizes of its updates) without its bad rows.

        ``epoch`` counts from 1; 0 is before training.

        Raises:
            ValueError: more bad rows than ``max_share`` allows.
        """
        A, row_ids, sizes = batch
        bad = bad_rows(A)
        if not bad.any():
            return batch
        self._record(A[bad], row_ids[bad].cpu().numpy(), epoch)
        kept = ~bad
        remaining = [int(part.sum()) for part in kept.cpu().split(sizes.tolist())]
        return A[kept], row_ids[kept], torch.tensor(remaining, dtype=torch.int64)

    def __len__(self) -> int:
        """Return the number of rows left out so far, by all processes if there is a folder."""
        return len(self._row_ids if self.folder is None else self.records())

    def records(self) -> np.ndarray:
        """Return one record per row left out, in order of rows."""
        records = np.concatenate(
            [np.empty(0, RECORD), *(np.fromfile(part, RECORD) for part in self._parts())]
        )
        records = records[np.lexsort((records["epoch"], records["row"]))]
        return records[np.unique(records["row"], return_index=True)[1]]

    def write_list(self) -> None:
        """Write ``skipped_rows.csv``: file, row in the file, row in the data, reason, first epoch."""
        if self.folder is None or not len(records := self.records()):
            return
        advice = "make room and resume the run, which writes it anew"
        with whole_file(self.folder / LIST, advice) as partial, open(partial, "w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(("file", "row_in_file", "row", "reason", "first_epoch"))
            for row, epoch, feature, value in records[:LISTED].tolist():
                lines.writerow((*self.source.locate(row), row, reason(feature, value), epoch))

    def summary(self) -> str:
        """Say how many rows of how many files were left out, and where they are listed."""
        records = self.records()
        n, files = len(records), len(np.unique(self.source.shard_of(records["row"])))
        first = f"the first {LISTED:,} " if n > LISTED else ""
        return (
            f"skipped {n:,} row{'s' * (n != 1)} of {files} file{'s' * (files != 1)} with NaN or Inf, "
            f"{first}listed in {self.folder}/{LIST}"
        )

    def _record(self, A: Tensor, row_ids: np.ndarray, epoch: int) -> None:
        new = np.array([row not in self._row_ids for row in row_ids.tolist()])
        if not new.any():
            return
        features = (~A.isfinite()).int().argmax(dim=1)
        records = np.empty(len(A), RECORD)
        records["row"], records["epoch"], records["feature"] = row_ids, epoch, features.cpu()
        records["value"] = A.gather(1, features[:, None])[:, 0].cpu()
        records = records[new]
        if not self._row_ids:
            row, _, feature, value = records[0].tolist()
            listed = "" if self.folder is None else f" and listed in {self.folder / LIST}"
            warnings.warn(
                f"{self.source.where(row)}: {reason(feature, value)}; such rows are left out "
                f"(data.on_bad_rows=skip){listed}",
                stacklevel=2,
            )
        self._row_ids |= set(records["row"].tolist())
        if self._part is not None:
            advice = "make room and resume from the last checkpoint"
            with full_disk_explained(self._part, advice), open(self._part, "ab") as file:
                file.write(records.tobytes())
        self._check_share()

    def _check_share(self) -> None:
        allowed = self.max_share * len(self.source)
        # Parts may share rows, so their sizes give an upper bound: read them only if that exceeds the limit.
        at_most = sum(part.stat().st_size for part in self._parts()) // RECORD.itemsize
        if max(at_most, len(self._row_ids)) > allowed and (count := len(self)) > allowed:
            listed = "" if self.folder is None else f"; they are listed in {self.folder / LIST}"
            raise ValueError(
                f"{count:,} of {len(self.source):,} rows hold NaN or Inf, more than "
                f"data.max_skipped={self.max_share:.2%} allows{listed}"
            )

    def _parts(self) -> list[Path]:
        return [] if self.folder is None else sorted(self.folder.glob(_part(Path(), "*").name))


def bad_rows(A: Tensor) -> Tensor:
    """Return whether each row (m,) of A holds NaN or Inf.

    >>> bad_rows(torch.tensor([[1.0, 2.0], [float("nan"), 0.0], [3e38, 3e38]]))
    tensor([False,  True, False])
    """
    # Testing the sum of each row costs a twentieth of testing each number.
    suspect = ~A.sum(dim=1).isfinite()
    if suspect.any():  # finite numbers may add up to infinity
        suspect[suspect.clone()] = ~A[suspect].isfinite().all(dim=1)
    return suspect


def reason(feature: int, value: float) -> str:
    """Say why a row is left out.

    >>> reason(3, float("inf"))
    'feature 3 is inf'
    """
    return f"feature {feature} is {value}"


def _part(folder: Path, rank: int | str) -> Path:
    return folder / f"skipped_rows.{rank}.part"
