"""Accelerated projected gradient: matrix products only, which suits GPUs.

Lin, "Projected gradient methods for nonnegative matrix factorization", Neural Computation 19, 2007; Nesterov
momentum with restart as in O'Donoghue & Candes, "Adaptive restart for accelerated gradient schemes", 2015.
Deviation: each atom has its own step length.  The constraints hold atom by atom, so a diagonal preconditioner
keeps the projection exact, and atoms that fire rarely move as fast as the others.

Legend:  D (k, d) dictionary   S = Z^T Z (k, k)   P = Z^T A (k, d)   Y (k, d) D with momentum
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seminmf_lightning.core.checks import whole_number
from seminmf_lightning.core.constraints import Constraint
from seminmf_lightning.solvers.base import StatisticsSolver

POWER_ITERATIONS = 20
WORTH_IT = 0.02
"""A solver step ends when a gradient step gains less than this share of the gain so far."""
SAFETY = 1.02
"""Factor on the largest eigenvalue, which power iteration approaches from below; if it is too small, the
objective rises and the constant is doubled."""


@dataclass(frozen=True, kw_only=True)
class ProjectedGradient(StatisticsSolver):
    """``D <- proj(Y - (S Y - P) / (L S_jj))`` with L the largest eigenvalue of S scaled to a unit diagonal.

    >>> from seminmf_lightning.core.constraints import CONSTRAINTS
    >>> S, P = torch.tensor([[2.0]]), torch.tensor([[4.0, -1.0]])
    >>> D = ProjectedGradient().step(torch.ones(1, 2), S, P, constraint=CONSTRAINTS["both"], bounded=True)
    >>> D.round(decimals=2)
    tensor([[1., 0.]])
    """

    inner_steps: int = 10
    """Maximum gradient steps per solver step, with fixed codes; each solver step resets the momentum."""

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("solver.inner_steps", self.inner_steps, 1)

    def step(self, D: Tensor, S: Tensor, P: Tensor, *, constraint: Constraint, bounded: bool) -> Tensor:
        curvature = S.diagonal()
        curvature = curvature.clamp(min=float(curvature.max()) * torch.finfo(S.dtype).eps)
        if curvature.max() <= 0:
            return D.clone()
        lipschitz = (curvature * (_largest_eigenvalue(S, curvature.rsqrt()) * SAFETY))[:, None]
        D = D.clone()
        SD = S @ D
        value = first_value = _quadratic(D, SD, P)
        Y, SY, momentum = D, SD, 1.0
        for _ in range(self.inner_steps):
            candidate = constraint.project_atoms(Y - (SY - P) / lipschitz, bounded)
            S_candidate = S @ candidate
            candidate_value = _quadratic(candidate, S_candidate, P)
            # Restart the momentum after a rise; without momentum the step itself was too long.
            if candidate_value > value:
                if momentum == 1.0:
                    lipschitz = lipschitz * 2
                Y, SY, momentum = D, SD, 1.0
                continue
            next_momentum = 0.5 * (1 + (1 + 4 * momentum**2) ** 0.5)
            push = (momentum - 1) / next_momentum
            Y = torch.lerp(D, candidate, 1 + push)
            SY = torch.lerp(SD, S_candidate, 1 + push)
            gain = value - candidate_value
            D, SD, value, momentum = candidate, S_candidate, candidate_value, next_momentum
            if gain <= WORTH_IT * (first_value - value):
                break
        return D


def _quadratic(D: Tensor, SD: Tensor, P: Tensor) -> float:
    return float(((0.5 * SD - P) * D).sum(dtype=torch.float64))


def _largest_eigenvalue(S: Tensor, inverse_root: Tensor) -> Tensor:
    """Return the largest eigenvalue of ``diag(r) S diag(r)``, by power iteration from a fixed start."""
    vector = torch.linspace(1, 2, S.shape[0], dtype=S.dtype, device=S.device)
    for _ in range(POWER_ITERATIONS):
        vector = inverse_root * (S @ (inverse_root * vector))
        norm: Tensor = vector.norm()
        vector = vector / norm.clamp(min=torch.finfo(S.dtype).tiny)
    return norm.clamp(min=1.0)  # a unit diagonal: the largest eigenvalue is at least 1
