"""Rows that hold NaN or Inf and are left out: none without a trace, none counted twice."""

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
"""Rows named in the list; further ones are counted."""
RECORD = np.dtype([("row", "<i8"), ("pass", "<i4"), ("feature", "<i4"), ("value", "<f4")])


class SkippedRows:
    """What is left out of one source.

    Given a folder, each process appends what it meets first to a part file of its own there, before the batch
    goes on: a kill loses nothing, a resumed run knows the rows of all parts, and :meth:`write_list` makes one
    list of them.  Memory is that of a set of the rows left out.

    Args:
        source: where the rows come from.
        max_share: of its rows that may be left out.
    """

    def __init__(self, source: Source, max_share: float) -> None:
        self.source, self.max_share = source, max_share
        self.folder: Path | None = None
        self._part: Path | None = None
        self._known: set[int] = set()

    def keep_in(self, folder: Path, rank: int, world: int, *, resumed: bool) -> None:
        """Keep parts and list in ``folder``, going on with those of the run that is resumed."""
        self.folder, self._part = folder, _part(folder, rank)
        self._known.clear()
        folder.mkdir(parents=True, exist_ok=True)
        if resumed:
            self._known |= set(self.records()["row"].tolist())
            if self._part.exists():  # a kill or a full disk may have left half a record
                os.truncate(self._part, self._part.stat().st_size // RECORD.itemsize * RECORD.itemsize)
            return
        self._part.write_bytes(b"")
        if rank == 0:
            mine = {_part(folder, process) for process in range(world)}
            for left in (
                folder / LIST,
                *(part for part in self._parts() if part not in mine),
            ):  # of a run that failed early
                left.unlink(missing_ok=True)

    def drop(self, batch: tuple[Tensor, Tensor, Tensor], passes: int) -> tuple[Tensor, Tensor, Tensor]:
        """A batch (rows, their numbers, sizes of its minibatches) without bad rows; ``passes``: 1 in the
        first pass, 0 before.

        Raises:
            ValueError: more rows than may be are bad.
        """
        A, numbers, sizes = batch
        bad = bad_rows(A)
        if not bad.any():
            return batch
        self._note(A[bad], numbers[bad].cpu().numpy(), passes)
        kept = ~bad
        left = [int(part.sum()) for part in kept.cpu().split(sizes.tolist())]
        return A[kept], numbers[kept], torch.tensor(left, dtype=torch.int64)

    def __len__(self) -> int:
        """Rows left out so far, each counted once; of all processes where there is a folder."""
        return len(self._known if self.folder is None else self.records())

    def records(self) -> np.ndarray:
        """What the parts hold, one record a row, in order of rows."""
        found = np.concatenate([np.empty(0, RECORD), *(np.fromfile(part, RECORD) for part in self._parts())])
        found = found[np.lexsort((found["pass"], found["row"]))]
        return found[np.unique(found["row"], return_index=True)[1]]

    def write_list(self) -> None:
        """``skipped_rows.csv``: the file, the row in it, the row among all, why, and the pass that met it
        first."""
        if self.folder is None or not len(found := self.records()):
            return
        with (
            whole_file(self.folder / LIST, "make room and resume the run, which writes it anew") as partial,
            open(partial, "w", newline="") as file,
        ):
            lines = csv.writer(file)
            lines.writerow(("file", "row_in_file", "row", "reason", "first_pass"))
            for row, passes, feature, value in found[:LISTED].tolist():
                lines.writerow((*self.source.locate(row), row, reason(feature, value), passes))

    def summary(self) -> str:
        """How many rows of how many files, and where they are listed."""
        found = self.records()
        files = len(np.unique(self.source.shard_of(found["row"])))
        first = f"the first {LISTED:,} " if len(found) > LISTED else ""
        return (
            f"skipped {len(found):,} row{'s' * (len(found) != 1)} of {files} file{'s' * (files != 1)} with NaN or Inf, "
            f"{first}listed in {self.folder}/{LIST}"
        )

    def _note(self, A: Tensor, numbers: np.ndarray, passes: int) -> None:
        new = np.array([row not in self._known for row in numbers.tolist()])
        if not new.any():
            return
        features = (~A.isfinite()).int().argmax(dim=1)
        values = A.gather(1, features[:, None])[:, 0]
        found = np.empty(len(A), RECORD)
        found["row"], found["pass"], found["feature"], found["value"] = (
            numbers,
            passes,
            features.cpu(),
            values.cpu(),
        )
        found = found[new]
        if not self._known:
            first = found[0]
            warnings.warn(
                f"{self.source.where(int(first['row']))}: {reason(first['feature'], first['value'])}; such rows are left out "
                f"(data.on_bad_rows=skip)"
                + ("" if self.folder is None else f" and listed in {self.folder / LIST}"),
                stacklevel=2,
            )
        self._known |= set(found["row"].tolist())
        if self._part is not None:
            with (
                full_disk_explained(self._part, "make room and resume from the last checkpoint"),
                open(self._part, "ab") as file,
            ):
                file.write(found.tobytes())
        self._check_share()

    def _check_share(self) -> None:
        allowed = self.max_share * len(self.source)
        # Rows that several processes met are in several parts: count them apart only where it may matter.
        at_most = sum(part.stat().st_size for part in self._parts()) // RECORD.itemsize
        if max(at_most, len(self._known)) > allowed and (count := len(self)) > allowed:
            raise ValueError(
                f"{count:,} of {len(self.source):,} rows hold NaN or Inf, more than data.max_skipped={self.max_share:.2%} "
                "allows" + ("" if self.folder is None else f"; they are listed in {self.folder / LIST}")
            )

    def _parts(self) -> list[Path]:
        return [] if self.folder is None else sorted(self.folder.glob(_part(Path(), "*").name))


def bad_rows(A: Tensor) -> Tensor:
    """Which rows (m,) hold NaN or Inf.  A sum over the row shows it at a twentieth of the price of looking at
    each number."""
    suspect = ~A.sum(dim=1).isfinite()
    if suspect.any():  # finite numbers may add up to infinity
        suspect[suspect.clone()] = ~A[suspect].isfinite().all(dim=1)
    return suspect


def reason(feature: int, value: float) -> str:
    return f"feature {feature} is {value}"


def _part(folder: Path, rank: int | str) -> Path:
    return folder / f"skipped_rows.{rank}.part"
