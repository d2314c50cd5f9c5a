"""A checkpoint every so many seconds, and when a signal says that time is up.

A signal handler only takes note.  After each batch the processes agree in one message on whether any of them
has a checkpoint due or a signal noted, then all save, and all leave, at the same batch: a handler that talks
to the others itself can hang.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from types import FrameType
from typing import Any

import lightning
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from seminmf_lightning.core.checks import real_number
from seminmf_lightning.training.distributed import largest

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
DUE = 1


class Preempted(SystemExit):
    """A signal ended the run after its checkpoint was written.

    The status is that of a shell, 128 + the signal's number; 0 for SIGUSR1, which schedulers send ahead of
    the end, and for processes other than the first, whose launcher would kill the rest.
    """


class TimedCheckpoint(lightning.Callback):
    """Save ``path`` within a batch whenever ``seconds`` have passed, and on SIGTERM, SIGUSR1 or Ctrl-C, which
    end the run.

    ModelCheckpoint's own ``train_time_interval`` saves nothing under manual optimisation (Lightning 2.6).  A
    second Ctrl-C stops at once.

    Args:
        path: the checkpoint.
        seconds: between two checkpoints, above 0.
        requeue: put the SLURM job back into its queue after SIGUSR1 (``scontrol requeue``).
    """

    def __init__(self, path: str, seconds: float = 30.0, requeue: bool = False) -> None:
        self.path, self.seconds, self.requeue = (
            path,
            real_number("seconds", seconds, 0, exclusive=True),
            requeue,
        )
        self._last, self._noted = 0.0, 0
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._last, self._noted = time.monotonic(), 0
        # Here, because the trainer puts its own handler of SIGTERM in place shortly before.
        if threading.current_thread() is threading.main_thread():  # no other may
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._look(trainer)

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if trainer.state.fn == TrainerFn.FITTING:
            self._look(trainer)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """After training there is nothing to save: a signal ends the process, and its status says so.
        (Lightning's handler would end it with status 0, as if all were done.)"""
        if trainer.state.fn == TrainerFn.VALIDATING and threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGUSR1)
            }

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._restore()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._restore()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            rank_zero_info("\nCtrl-C: stopping after this batch; once more to stop at once")

    def _look(self, trainer: lightning.Trainer) -> None:
        due = time.monotonic() - self._last >= self.seconds
        found = largest(self._noted + DUE if self._noted else DUE * due, trainer.strategy.root_device)
        if not found:
            return
        if found == DUE and not trainer.training:
            return  # the pass ends soon, and is saved then
        trainer.save_checkpoint(self.path)
        self._last = time.monotonic()
        if found > DUE:
            self._leave(trainer, signal.Signals(found - DUE))

    def _leave(self, trainer: lightning.Trainer, number: signal.Signals) -> None:
        job = os.environ.get("SLURM_JOB_ID")
        rank_zero_info(
            f"{number.name}: saved {self.path} at step {trainer.global_step}; the run goes on from it when resumed"
        )
        if self.requeue and number == signal.SIGUSR1 and job and trainer.is_global_zero:
            done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
            if done.returncode:
                rank_zero_warn(
                    f"scontrol requeue {job} failed: {done.stderr.strip()}; submit the job again, it goes on"
                )
        self._restore()
        raise Preempted(0 if number == signal.SIGUSR1 or not trainer.is_global_zero else 128 + number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
