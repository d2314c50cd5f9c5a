"""All communication between processes.

A solver step needs only sums over the data: processes exchange sums, never dictionaries, and each of them
then takes the same step from the same numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

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


def add_over_processes_(x: Tensor) -> None:
    """Replace a tensor by its sum over all processes."""
    if world_size() > 1:
        dist.all_reduce(x)


def largest(number: int, device: torch.device) -> int:
    """Return the largest number over all processes, on each of them."""
    if world_size() == 1:
        return number
    maximum = torch.tensor(number, device=device)
    dist.all_reduce(maximum, op=dist.ReduceOp.MAX)
    return int(maximum)


def gather_rows(A: Tensor) -> Tensor:
    """Return the rows of all processes in order of rank, on each of them; their counts may differ."""
    if world_size() == 1:
        return A
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, A.cpu())
    return torch.cat(parts).to(A.device)


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
        learner.add_over_processes_ = add_over_processes_

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        if closure is not None and closure():
            all_reduce_(self._learner.pending)
            self._learner.absorb()
        D = self._dictionary
        D.copy_(self._learner.improve(D.detach()))
