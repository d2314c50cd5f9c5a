"""The rows of a sum that processes share out, joined for a checkpoint without holding all of them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.processes import AtomShares
from seminmf_lightning.io.atomic import full_disk_explained

MESSAGE_BYTES = 2**26


def joined(x: Tensor, shares: AtomShares, folder: Path) -> Tensor:
    """Return on process 0 the rows of all processes, in a temporary file, and x (h, ...) on the others.

    The file has no name, and goes when the tensor does.
    """
    rank = shares.processes.rank
    whole = _in_file((shares.slices[-1].stop, *x.shape[1:]), x.dtype, folder) if rank == 0 else x
    at_once = max(1, MESSAGE_BYTES // max(1, x[:1].nbytes or x.shape[1] * x.element_size()))
    for process, atoms in enumerate(shares.slices):
        for first in range(atoms.start, atoms.stop, at_once):
            part = slice(first, min(first + at_once, atoms.stop))
            if process == rank:
                rows = x[part.start - atoms.start : part.stop - atoms.start].contiguous()
            else:
                rows = x.new_empty(part.stop - part.start, *x.shape[1:])
            shares.processes.broadcast_(rows, process)
            if rank == 0:
                whole[part] = rows.cpu()
    return whole


def form(x: Tensor, shares: AtomShares) -> Tensor:
    """Return a tensor without values of the shape that :func:`joined` returns."""
    return x.new_empty(shares.slices[-1].stop, *x.shape[1:], device="meta")


def _in_file(shape: tuple[int, ...], dtype: torch.dtype, folder: Path) -> Tensor:
    template = torch.empty(0, dtype=dtype).numpy()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file, full_disk_explained(folder, "make room and resume"):
        size = template.itemsize * int(np.prod(shape))
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):  # else a disk that fills up later ends the process without a word
            os.posix_fallocate(file.fileno(), 0, size)
        return torch.from_numpy(np.memmap(file, template.dtype, "r+", shape=shape))
