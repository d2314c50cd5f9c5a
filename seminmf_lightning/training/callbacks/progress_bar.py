"""Show the progress of a run in one line, never wider than the terminal."""

from __future__ import annotations

import logging
import math
import sys
import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from rich.console import Console
from rich.live import Live
from rich.text import Text

REFRESH_PER_SECOND = 4
BAR_CELLS = (8, 24)
"""Narrowest and widest bar, in characters."""


class ProgressBar(LightningProgressBar):
    """Progress, elapsed time and the metrics that matter: loss, optimality gap, l0 and penalty, rows per
    second.

    Metrics that do not fit are left out.  The line disappears at the end.  Nothing is written where the
    output is not a terminal.  Warnings and log messages appear above the line.

    >>> bar = ProgressBar()
    >>> bar.show("epoch 1/1", 3, 4)
    >>> bar.line(40, {"loss": 0.25}, seconds=65)
    'epoch 1/1 ━━━━━━━━╺━━ 3/4 1:05 loss 0.25'
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._live: Live | None = None
        self._metrics: dict[str, float] = {}
        self._began = time.monotonic()
        self._streams: list[tuple[logging.StreamHandler[Any], Any]] = []
        self.show("", 0, math.inf)

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def show(self, task: str, done: int, total: float) -> None:
        """Set what the line says next."""
        self._task, self._done, self._total = task, done, total

    def line(self, width: int, metrics: dict[str, float], seconds: float) -> str:
        """Return the line for a terminal of ``width`` columns."""
        known = math.isfinite(self._total) and self._total > 0
        count = f"{self._done:,}/{int(self._total):,}" if known else f"{self._done:,}"
        parts = [count, f"{int(seconds) // 60}:{int(seconds) % 60:02}"]
        room = width - len(self._task) - 2 - (BAR_CELLS[0] if known else 0)
        for part in map(described, metrics.items()):
            if len(" ".join([*parts, part])) <= room:
                parts.append(part)
        text = " ".join(parts)
        if known:
            cells = max(0, min(BAR_CELLS[1], width - len(self._task) - len(text) - 2))
            full = min(cells, int(cells * self._done / self._total))
            text = f"{'━' * full}{'╺' * (full < cells)}{'━' * (cells - full - 1)} {text}"
        return f"{self._task} {text}"[:width]

    # --- the trainer's hooks

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._start()

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._show_epoch(trainer, 0)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any,
        batch_idx: int,
    ) -> None:  # fmt: skip
        self._metrics = shown(trainer)
        self._show_epoch(trainer, batch_idx + 1)

    def on_solver_steps(self, trainer: lightning.Trainer, done: int, limit: int) -> None:
        self._metrics = shown(trainer)
        self.show("solver steps", done, limit)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._start()

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self.show("validation", batch_idx + 1, sum(trainer.num_val_batches))

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.state.fn != "fit":
            self._stop()

    def on_predict_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._start()

    def on_predict_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self.show("encoding", batch_idx + 1, sum(trainer.num_predict_batches))

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self._stop()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    # --- the terminal

    def _show_epoch(self, trainer: lightning.Trainer, done: int) -> None:
        last = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
        task = f"epoch {trainer.current_epoch + 1}" + (f"/{last}" if last else "")
        self.show(task, done, trainer.num_training_batches)

    def _start(self) -> None:
        console = Console()
        if not self._enabled or self._live is not None or not (console.is_terminal or console.is_jupyter):
            return
        self._began = time.monotonic()
        streams = (sys.stdout, sys.stderr)
        self._live = Live(
            get_renderable=lambda: Text(
                self.line(console.width - 1, self._metrics, time.monotonic() - self._began), no_wrap=True
            ),
            console=console, transient=True, refresh_per_second=REFRESH_PER_SECOND,
        )  # fmt: skip
        self._live.start()
        # Log handlers hold the streams that were there before, and would write into the line.
        for logger in (logging.getLogger(name) for name in (None, "lightning.pytorch", "lightning.fabric")):
            for handler in logger.handlers:
                if isinstance(handler, logging.StreamHandler) and handler.stream in streams:
                    self._streams.append((handler, handler.stream))
                    handler.setStream(sys.stdout if handler.stream is streams[0] else sys.stderr)

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        for handler, stream in self._streams:
            handler.setStream(stream)
        self._streams = []


def shown(trainer: lightning.Trainer) -> dict[str, float]:
    """Return the metrics that a module logs for the bar."""
    return {name: float(value) for name, value in trainer.progress_bar_metrics.items()}


def described(metric: tuple[str, float]) -> str:
    """Format a metric briefly.

    >>> described(("loss", 0.0123456)), described(("rows/s", 11350.2))
    ('loss 0.01235', '11,350 rows/s')
    """
    name, value = metric
    return f"{value:,.0f} {name}" if name.endswith("/s") else f"{name} {value:.4g}"
