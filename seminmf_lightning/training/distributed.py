"""All communication between processes.

A solver step needs only sums over the data: processes exchange sums, or rows with sparse codes where these
are fewer numbers, never dictionaries, and each of them then takes the same step from the same numbers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from seminmf_lightning.core.processes import Processes
from seminmf_lightning.core.sums import Sums
from seminmf_lightning.learners import Learner


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def all_reduce_(sums: Sums) -> None:
    """Replace the sums of every process by their total, in one message."""
    if world_size() > 1:
        flat = sums.flat()
        dist.all_reduce(flat)
        sums.set_flat_(flat)


def largest(number: int, device: torch.device) -> int:
    """Return the largest number over all processes, on each of them."""
    if world_size() == 1:
        return number
    maximum = torch.tensor(number, device=device)
    dist.all_reduce(maximum, op=dist.ReduceOp.MAX)
    return int(maximum)


def gather(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return each tensor with its rows of all processes, in order of rank; their counts may differ.

    All of them travel in one message, after one with the counts.
    """
    if world_size() == 1:
        return tensors
    sizes = torch.tensor([x.element_size() * math.prod(x.shape[1:]) for x in tensors])  # bytes per row
    lengths = _all_gather(torch.tensor([len(x) for x in tensors], device=tensors[0].device)).cpu() * sizes
    message = tensors[0].new_zeros(int(lengths.sum(dim=1).max()), dtype=torch.uint8)
    content = torch.cat([x.contiguous().view(-1).view(torch.uint8) for x in tensors])
    message[: len(content)] = content
    parts = [
        received[: sum(row)].split(row)
        for received, row in zip(_all_gather(message), lengths.tolist(), strict=True)
    ]
    joined = (torch.cat(part) for part in zip(*parts, strict=True))  # new memory: aligned for any type
    return tuple(flat.view(x.dtype).view(-1, *x.shape[1:]) for flat, x in zip(joined, tensors, strict=True))


class ProcessGroup(Processes):
    """All processes of the run."""

    @property
    def rank(self) -> int:  # type: ignore[override]
        return rank()

    @property
    def count(self) -> int:  # type: ignore[override]
        return world_size()

    def add_(self, sums: Tensor) -> None:
        if world_size() > 1:
            dist.all_reduce(sums)

    def gather(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return gather(*tensors)

    def broadcast_(self, x: Tensor, source: int) -> None:
        if world_size() > 1 and x.numel():
            dist.broadcast(x, source)


def _all_gather(x: Tensor) -> Tensor:
    """Return x (m,) of every process as (processes, m)."""
    everywhere = x.new_empty(world_size() * len(x))
    dist.all_gather_into_tensor(everywhere, x)
    return everywhere.view(world_size(), -1)


def first_proposal(key: str, proposal: str) -> str:
    """Return the first proposal for ``key`` that reached the store which torchrun keeps for all its workers.

    Raises:
        RuntimeError: there is no such store.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise RuntimeError(
            "this torchrun keeps no store for its workers: set SEMINMF_RUN_ID to one value on every node"
        )
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return store.compare_set(key, "", proposal).decode()


class SolverOptimizer(torch.optim.Optimizer):
    """The learner as a torch optimizer, so that strategies, checkpoints and step counts work.

    ``step(closure)``: the closure adds this process's rows to ``learner.pending`` and returns whether it did
    (the same answer on every process); the sums are all-reduced, absorbed, and the dictionary takes one
    solver step.
    """

    def __init__(self, dictionary: nn.Parameter, learner: Learner) -> None:
        super().__init__([dictionary], defaults={})
        self._dictionary, self._learner = dictionary, learner

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        if closure is not None and closure():
            all_reduce_(self._learner.pending)
            self._learner.absorb()
        D = self._dictionary
        D.copy_(self._learner.improve(D.detach()))
