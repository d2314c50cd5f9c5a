"""Multiplicative updates, by the rule of the published method for each choice of signs.

Semi-NMF: Ding, Li & Jordan, "Convex and Semi-Nonnegative Matrix Factorizations", TPAMI 32(1), 2010, eq. (7)
for the nonnegative factor, with G = D^T, F = Z, and eq. (8) for the free one.  NMF: Lee & Seung, "Algorithms
for non-negative matrix factorization", NIPS 2000.  Deviations: several updates of D per refresh of the codes,
because the codes are the expensive part; where the codes are the nonnegative factor, the encoder minimises
over them exactly instead of by eq. (7), and eq. (8) is all that is left for D.

Legend:  D (k, d) dictionary   S = Z^T Z (k, k)   P = Z^T A (k, d)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from seminmf_lightning.core.checks import whole_number
from seminmf_lightning.core.constraints import Constraint
from seminmf_lightning.core.linalg import RANK_TOLERANCE
from seminmf_lightning.solvers.base import StatisticsSolver


@dataclass(frozen=True, kw_only=True)
class MultiplicativeUpdate(StatisticsSolver):
    """``D <- D * sqrt((P+ + S- D) / (P- + S+ D))``, with ``x+ = max(x, 0)`` and ``x- = max(-x, 0)``.

    Where both factors are nonnegative ``D <- D * (P / (S D))``; where only the codes are ``D <- S^+ P``.

    >>> from seminmf_lightning.core.constraints import CONSTRAINTS
    >>> S, P = torch.tensor([[2.0]]), torch.tensor([[4.0, 0.0]])
    >>> D = MultiplicativeUpdate().step(
    ...     torch.ones(1, 2), S, P, constraint=CONSTRAINTS["dictionary"], bounded=False)
    >>> D.round(decimals=2)
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

    def supports(self, constraint: Constraint) -> bool:
        return not constraint.sign_is_free

    def step(self, D: Tensor, S: Tensor, P: Tensor, *, constraint: Constraint, bounded: bool) -> Tensor:
        if bounded:
            raise ValueError(
                "multiplicative updates cannot bound the atoms; use a solver with supports_penalty"
            )
        if not constraint.nonnegative_atoms:
            return _least_squares(D, S, P)
        power = 1.0 if constraint.nonnegative_codes else 0.5
        S_plus, S_minus = S.clamp(min=0), S.clamp(max=0).neg()
        P_plus, P_minus = P.clamp(min=0), P.clamp(max=0).neg()
        precision = torch.finfo(D.dtype)
        for _ in range(self.inner_steps):
            numerator, denominator = P_plus + S_minus @ D, P_minus + S_plus @ D
            # The ratio stays finite, so that an entry that is zero stays zero.
            floor = (numerator.max() * precision.eps**2).clamp(min=precision.tiny)
            D = D * (numerator / torch.maximum(denominator, floor)).pow_(power)
        return D


def _least_squares(D: Tensor, S: Tensor, P: Tensor) -> Tensor:
    """Return the minimiser nearest to D: ``D + S^+ (P - S D)``; atoms without codes stay."""
    values, vectors = torch.linalg.eigh(S.double())
    kept = values > values[-1].clamp(min=torch.finfo(S.dtype).tiny) * RANK_TOLERANCE
    basis = vectors[:, kept]
    descent = basis.T @ torch.addmm(P.double(), S.double(), D.double(), alpha=-1)
    minimiser: Tensor = D.double() + basis @ (descent / values[kept, None])
    return minimiser.to(D)
