"""Checkpoints that are whole or absent.

Written beside their target, flushed to disk, then moved over it: a kill at any moment leaves the old file or
the new one.  The one that is replaced stays as ``<name>.previous.ckpt``, should the disk damage its
successor.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn

from seminmf_lightning.io.atomic import whole_file
from seminmf_lightning.io.untrusted import Refused
from seminmf_lightning.training.checkpoints import read_checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files on the local disk, replaced atomically, loaded without running code."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        target = Path(path)
        for left in target.parent.glob(
            f"{target.name}.*.partial"
        ):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        kept = f"the previous checkpoint stays whole: make room and resume with ckpt_path={target}"
        with (
            whole_file(target, kept if target.exists() else "make room and start again") as partial,
            open(partial, "wb") as file,
        ):
            torch.save(checkpoint, file)
            file.flush()
            _keep(target)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """As :func:`read_checkpoint`: on the CPU, whatever is asked for, and never more than
        ``weights_only``."""
        return read_checkpoint(Path(path))


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint of ``folder`` that can be read; the others are named in a warning."""
    for file in sorted(folder.glob("*.ckpt"), key=lambda file: file.stat().st_mtime_ns, reverse=True):
        try:
            read_checkpoint(file)
        except Refused as error:
            rank_zero_warn(f"{error}; an older checkpoint is looked for")
        else:
            return file
    return None


def _keep(target: Path) -> None:
    """Give the checkpoint that is about to be replaced a second name; where there are no hard links it is not
    kept."""
    again = target.with_name(f"{target.name}.{os.getpid()}.previous.partial")
    with suppress(OSError):
        os.link(target, again)
        os.replace(again, target.with_name(f"{target.stem}.previous{target.suffix}"))
