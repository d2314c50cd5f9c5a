"""The repository's commands, run as a user runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
TWO = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")
"""Two processes on the CPU."""


def kill_after_first_checkpoint(arguments: Sequence[str], run: Path) -> None:
    """Train into ``run`` until it has a checkpoint, then kill -9 all processes of the run."""
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments, f"hydra.run.dir={run}"]
    silent = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=ROOT, stdout=silent, stderr=silent, start_new_session=True)
    deadline = time.monotonic() + 300  # two processes start slowly beside other tests
    while (
        not (run / "checkpoints" / "last.ckpt").exists()
        and process.poll() is None
        and time.monotonic() < deadline
    ):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
