"""Positive and negative parts of data rows: atoms that resemble the data.

Codes are free in sign, so the negative part of a row is as good an atom as the positive part: it is used with
z < 0.

Legend:  A (m, d) sample of normalised rows   D (k, d) dictionary
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.inits.base import Init

FLOOR = 0.01
"""Share of an atom's mean that is added to it if no entry may be zero."""
JITTER = 0.1
"""Length of the noise, relative to the atom, added to rows used twice because there are fewer rows than
atoms."""


@dataclass(frozen=True, kw_only=True)
class Data(Init):
    """Take the positive and the negative part of randomly ordered rows in turn; empty parts are skipped.

    >>> A = torch.tensor([[3.0, -4.0], [0.0, 2.0]])
    >>> Data().start(A, 2, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 2])
    """

    def start(self, A: Tensor, k: int, generator: torch.Generator, *, positive: bool = False) -> Tensor:
        order = torch.randperm(A.shape[0], generator=generator).to(A.device)
        order = order[(A != 0).any(dim=1)[order]]
        rows = A[order[: 2 * k + 1]].double()  # enough of them, even if every second part is empty
        parts = torch.cat([_alternate(rows), _alternate(-rows)])
        parts = parts[parts.norm(dim=1) > 0]
        if not len(parts):  # every row is zero: any dictionary is right
            parts = rows.new_ones(1, A.shape[1])
        D = unit_atoms(parts[torch.arange(k, device=A.device) % len(parts)])
        repeated = D[len(parts) :]
        noise = torch.rand(repeated.shape, generator=generator, dtype=A.dtype).to(A.device)
        repeated += JITTER * noise / A.shape[1] ** 0.5
        return unit_atoms(D + FLOOR * D.mean(dim=1, keepdim=True) if positive else D)


def _alternate(rows: Tensor) -> Tensor:
    """Return max(a, 0) of even rows and max(-a, 0) of odd ones."""
    sign = 1 - 2 * (torch.arange(rows.shape[0], device=rows.device) % 2)
    return (rows * sign[:, None]).clamp(min=0)
