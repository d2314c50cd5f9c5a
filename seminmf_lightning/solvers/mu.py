"""Multiplicative updates with the square-root rule.

Ding, Li & Jordan, "Convex and Semi-Nonnegative Matrix Factorizations", TPAMI 32(1), 2010, eq. (7) with G =
D^T, F = Z.  Deviation: several updates of D per refresh of the codes, because the codes are the expensive
part.

Legend:  D (k, d) dictionary   S = Z^T Z (k, k)   P = Z^T A (k, d)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from seminmf_lightning.core.checks import whole_number
from seminmf_lightning.solvers.base import Solver


@dataclass(frozen=True, kw_only=True)
class MultiplicativeUpdate(Solver):
    """``D <- D * sqrt((P+ + S- D) / (P- + S+ D))``, with ``x+ = max(x, 0)`` and ``x- = max(-x, 0)``.

    >>> S, P = torch.tensor([[2.0]]), torch.tensor([[4.0, 0.0]])
    >>> MultiplicativeUpdate().step(torch.ones(1, 2), S, P, bounded=False).round(decimals=2)
    tensor([[2., 0.]])
    """

    inner_steps: int = 10
    """Updates of D per solver step, with fixed codes."""

    default_for: ClassVar[str | None] = "free"
    supports_penalty: ClassVar[bool] = False
    needs_positive_start: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("solver.inner_steps", self.inner_steps, 1)

    def step(self, D: Tensor, S: Tensor, P: Tensor, *, bounded: bool) -> Tensor:
        if bounded:
            raise ValueError(
                "multiplicative updates cannot bound the atoms; use a solver with supports_penalty"
            )
        S_plus, S_minus = S.clamp(min=0), S.clamp(max=0).neg()
        P_plus, P_minus = P.clamp(min=0), P.clamp(max=0).neg()
        precision = torch.finfo(D.dtype)
        for _ in range(self.inner_steps):
            numerator, denominator = P_plus + S_minus @ D, P_minus + S_plus @ D
            # The ratio stays finite, so that an entry that is zero stays zero.
            floor = (numerator.max() * precision.eps**2).clamp(min=precision.tiny)
            D = D * (numerator / torch.maximum(denominator, floor)).sqrt_()
        return D
