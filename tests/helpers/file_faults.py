"""What goes wrong with files while a run reads or writes them, as a callback that makes it happen between two
batches."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import lightning
import numpy as np
from lightning.pytorch.trainer.states import TrainerFn


def truncate(path: Path) -> None:
    os.truncate(path, 4096)


def replace(path: Path) -> None:
    other = path.with_suffix(".other")
    other.write_bytes(path.read_bytes())
    os.replace(other, path)


def delete(path: Path) -> None:
    path.unlink()


def write(path: Path) -> None:
    """A NaN in row 7, in place."""
    np.load(path, mmap_mode="r+")[7, 3] = np.nan
    os.utime(path)  # a mapped write shows in the time of change when the system gets to it


def write_unnoticed(path: Path) -> None:
    """The same with the time of change put back."""
    before = path.stat()
    write(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


class Break(lightning.Callback):
    """Calls a function above by its name, once, after a batch of a pass (from 0)."""

    def __init__(self, how: str, path: str, epoch: int = 0, batch: int = 0) -> None:
        self.how: Callable[[Path], None] = globals()[how]
        self.path, self.at = Path(path), (epoch, batch)

    def on_train_batch_end(self, trainer: lightning.Trainer, *rest: object) -> None:
        if self.at == (trainer.current_epoch, rest[-1]):
            self.how(self.path)


class Signal(lightning.Callback):
    """Sends this process a signal, once: in the first batch of training, or of the validation that follows
    training."""

    def __init__(self, number: int, when: str) -> None:
        self.number, self.when = number, when

    def on_train_batch_start(self, trainer: lightning.Trainer, *rest: object) -> None:
        self._send("train")

    def on_validation_batch_start(self, trainer: lightning.Trainer, *rest: object) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._send("last validation")

    def _send(self, when: str) -> None:
        if self.when == when:
            self.when = "done"
            os.kill(os.getpid(), self.number)
