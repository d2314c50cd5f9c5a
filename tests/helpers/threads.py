"""Processes of one run as threads of one process: messages meet at a barrier."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from seminmf_lightning.core.processes import Processes


class Threads(Processes):
    def __init__(self, rank: int, count: int, barrier: threading.Barrier, slots: list[Any]) -> None:
        self.rank, self.count, self._barrier, self._slots = rank, count, barrier, slots

    def _exchange(self, message: Any) -> list[Any]:
        self._slots[self.rank] = message
        self._barrier.wait(60)
        received = list(self._slots)
        self._barrier.wait(60)
        return received

    def add_(self, sums: Tensor) -> None:
        sums.copy_(sum(self._exchange(sums.clone())))

    def gather(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.cat(parts) for parts in zip(*self._exchange(tensors), strict=True))

    def broadcast_(self, x: Tensor, source: int) -> None:
        x.copy_(self._exchange(x.clone())[source])


def in_processes(count: int, work: Callable[[Threads], Any]) -> list[Any]:
    """Return ``work(processes)`` of each of ``count`` processes."""
    barrier, slots = threading.Barrier(count), [None] * count
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda rank: work(Threads(rank, count, barrier, slots)), range(count)))
