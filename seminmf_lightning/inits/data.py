"""Positive and negative parts of real rows: atoms that already look like the data.

Codes are free in sign, so the negative part of a row is as good an atom as the positive part: it is used with
z < 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.inits.base import Init

FLOOR = 0.01  # of an atom's mean, added where no entry may be zero
JITTER = 0.1  # of an atom's length, added where a row serves again because rows are fewer than atoms


@dataclass(frozen=True, kw_only=True)
class Data(Init):
    """Rows in random order, taking the positive and the negative part in turn; a part that is empty gives
    way."""

    def start(
        self, A: Tensor, concepts: int, generator: torch.Generator, *, positive: bool = False
    ) -> Tensor:
        order = torch.randperm(A.shape[0], generator=generator).to(A.device)
        order = order[(A != 0).any(dim=1)[order]]
        rows = A[order[: 2 * concepts + 1]].double()  # enough of them, even if every second part is empty
        parts = torch.cat([_in_turn(rows), _in_turn(-rows)])
        parts = parts[parts.norm(dim=1) > 0]
        if not len(parts):  # every row is zero: any dictionary is right
            parts = torch.ones(1, A.shape[1], dtype=A.dtype, device=A.device)
        D = unit_atoms(parts[torch.arange(concepts, device=A.device) % len(parts)])
        again = D[len(parts) :]
        noise = torch.rand(again.shape, generator=generator, dtype=A.dtype).to(A.device)
        again += JITTER * noise / A.shape[1] ** 0.5
        return unit_atoms(D + FLOOR * D.mean(dim=1, keepdim=True) if positive else D)


def _in_turn(rows: Tensor) -> Tensor:
    """max(a, 0) of even rows, max(-a, 0) of odd ones."""
    sign = 1 - 2 * (torch.arange(rows.shape[0], device=rows.device) % 2)
    return (rows * sign[:, None]).clamp(min=0)
