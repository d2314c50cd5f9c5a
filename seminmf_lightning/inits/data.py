"""Data rows, or their positive and negative parts: atoms that resemble the data.

Where atoms are nonnegative and codes free in sign, the negative part of a row is as good an atom as the
positive part: it is used with z < 0.

Legend:  A (m, d) sample of normalised rows   D (k, d) dictionary
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seminmf_lightning.core.constraints import Constraint
from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.inits.base import Init, without_zeros

JITTER = 0.1
"""Length of the noise, relative to the atom, added to rows used twice because there are fewer rows than
atoms."""


@dataclass(frozen=True, kw_only=True)
class Data(Init):
    """Take randomly ordered rows, or the positive and the negative part of them in turn, without empty parts.

    >>> from seminmf_lightning.core.constraints import CONSTRAINTS
    >>> A = torch.tensor([[3.0, -4.0], [0.0, 2.0]])
    >>> Data().start(A, 2, torch.Generator().manual_seed(0), constraint=CONSTRAINTS["codes"]).shape
    torch.Size([2, 2])
    """

    def start(
        self, A: Tensor, k: int, generator: torch.Generator, *, constraint: Constraint, positive: bool = False
    ) -> Tensor:
        order = torch.randperm(A.shape[0], generator=generator).to(A.device)
        order = order[(A != 0).any(dim=1)[order]]
        rows = A[order[: 2 * k + 1]].double()  # enough of them, even if every second part is empty
        parts = _parts(rows, constraint)
        parts = parts[parts.norm(dim=1) > 0]
        if not len(parts):  # no row has a direction: any dictionary is right
            parts = rows.new_ones(1, A.shape[1])
        D = unit_atoms(parts[torch.arange(k, device=A.device) % len(parts)])
        repeated = D[len(parts) :]
        noise = torch.rand(repeated.shape, generator=generator, dtype=A.dtype).to(A.device)
        repeated += JITTER * noise / A.shape[1] ** 0.5
        return without_zeros(D) if positive else unit_atoms(D)


def _parts(rows: Tensor, constraint: Constraint) -> Tensor:
    """Return what an atom can take from each row, in the order of preference."""
    if constraint.is_semi_nmf:
        return torch.cat([_alternate(rows), _alternate(-rows)])
    return constraint.directions(rows)


def _alternate(rows: Tensor) -> Tensor:
    """Return max(a, 0) of even rows and max(-a, 0) of odd ones."""
    sign = 1 - 2 * (torch.arange(rows.shape[0], device=rows.device) % 2)
    return (rows * sign[:, None]).clamp(min=0)
