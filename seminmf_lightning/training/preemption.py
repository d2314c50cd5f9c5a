"""Save checkpoints at time intervals, and when a signal asks the run to end.

A signal handler only records the signal.  After each batch the processes agree in one message on whether a
checkpoint is due or a signal arrived on any of them, then all save, and all leave, at the same batch: a
handler that communicates itself can hang.
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

    The exit status is that of a shell, 128 + the signal's number; 0 for SIGUSR1, which schedulers send before
    the time limit, and for processes other than the first, whose launcher would kill the rest.
    """


class TimedCheckpoint(lightning.Callback):
    """Save ``path`` after the batch in which ``seconds`` have passed, and on SIGTERM, SIGUSR1 or Ctrl-C,
    which end the run.  A second Ctrl-C stops at once.

    ModelCheckpoint's own ``train_time_interval`` saves nothing under manual optimisation (Lightning 2.6).

    Args:
        path: the checkpoint.
        seconds: least time between two checkpoints, above 0.
        requeue: put the SLURM job back into its queue after SIGUSR1 (``scontrol requeue``).
    """

    def __init__(self, path: str, seconds: float = 30.0, requeue: bool = False) -> None:
        self.path, self.requeue = path, requeue
        self.seconds = real_number("seconds", seconds, 0, exclusive=True)
        self._saved_at, self._signal = 0.0, 0
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._saved_at, self._signal = time.monotonic(), 0
        # Not earlier: the trainer installs its own handler of SIGTERM shortly before.
        if threading.current_thread() is threading.main_thread():  # no other thread may
            self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any,
        batch_idx: int,
    ) -> None:  # fmt: skip
        self._save_or_leave(trainer)

    def on_solver_steps(self, trainer: lightning.Trainer, done: int, limit: int) -> None:
        """See :class:`~seminmf_lightning.training.schedule.SolverStepsHook`."""
        self._save_or_leave(trainer)

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        if trainer.state.fn == TrainerFn.FITTING:
            self._save_or_leave(trainer)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """After training there is nothing to save: a signal ends the process, and its status says so.
        (Lightning's handler would end it with status 0, as if it had finished.)"""
        if trainer.state.fn == TrainerFn.VALIDATING and threading.current_thread() is threading.main_thread():
            ending = (signal.SIGTERM, signal.SIGUSR1)
            self._handlers = {number: signal.signal(number, signal.SIG_DFL) for number in ending}

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._restore_handlers()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._restore_handlers()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        self._restore_handlers()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            rank_zero_info("\nCtrl-C: stopping after this batch; once more to stop at once")

    def _save_or_leave(self, trainer: lightning.Trainer) -> None:
        due = time.monotonic() - self._saved_at >= self.seconds
        request = largest(self._signal + DUE if self._signal else DUE * due, trainer.strategy.root_device)
        # Validation ends soon; a checkpoint that is merely due is saved then.
        if not request or (request == DUE and not trainer.training):
            return
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved_at = time.monotonic()
        if request > DUE:
            self._leave(trainer, signal.Signals(request - DUE))

    def _leave(self, trainer: lightning.Trainer, number: signal.Signals) -> None:
        job = os.environ.get("SLURM_JOB_ID")
        rank_zero_info(
            f"{number.name}: saved {self.path} at step {trainer.global_step}; resume the run from it"
        )
        if self.requeue and number == signal.SIGUSR1 and job and trainer.is_global_zero:
            done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
            if done.returncode:
                rank_zero_warn(
                    f"scontrol requeue {job} failed: {done.stderr.strip()}; submit the job again, and it "
                    "resumes"
                )
        self._restore_handlers()
        raise Preempted(0 if number == signal.SIGUSR1 or not trainer.is_global_zero else 128 + number)

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
