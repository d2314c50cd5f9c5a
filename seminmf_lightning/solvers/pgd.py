"""Accelerated projected gradient, made of matrix products alone.

Lin, "Projected gradient methods for nonnegative matrix factorization", Neural Computation 19, 2007; Nesterov
momentum with restart as in O'Donoghue & Candes, "Adaptive restart for accelerated gradient schemes", 2015.
Deviation: each atom has its own step.  Constraints hold row by row, so that a diagonal preconditioner keeps
the projection exact, and it makes the method blind to how often an atom is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seminmf_lightning.core.checks import whole_number
from seminmf_lightning.core.linalg import project_atoms
from seminmf_lightning.solvers.base import Solver

POWER_ITERATIONS = 20
WORTH_IT = 0.02
"""Share of what the step has gained so far below which another gradient step is not worth its price."""
SAFETY = (
    1.02  # power iteration approaches the largest eigenvalue from below; a rise doubles the constant anyhow
)


@dataclass(frozen=True, kw_only=True)
class ProjectedGradient(Solver):
    """``D <- proj(Y - (S Y - P) / (L S_jj))``, ``L`` the largest eigenvalue of S scaled to a unit diagonal, Y
    with momentum."""

    inner_steps: int = 10
    """Most gradient steps a step, at fixed codes; momentum starts afresh with each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("solver.inner_steps", self.inner_steps, 1)

    def step(self, D: Tensor, S: Tensor, P: Tensor, *, bounded: bool) -> Tensor:
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
            candidate = project_atoms(Y - (SY - P) / lipschitz, bounded)
            S_candidate = S @ candidate
            candidate_value = _quadratic(candidate, S_candidate, P)
            if candidate_value > value:
                if momentum == 1.0:
                    lipschitz = lipschitz * 2
                Y, SY, momentum = D, SD, 1.0
                continue
            following = 0.5 * (1 + (1 + 4 * momentum**2) ** 0.5)
            push = (momentum - 1) / following
            Y = torch.lerp(D, candidate, 1 + push)
            SY = torch.lerp(SD, S_candidate, 1 + push)
            gained = value - candidate_value
            D, SD, value, momentum = candidate, S_candidate, candidate_value, following
            if gained <= WORTH_IT * (first_value - value):
                break
        return D


def _quadratic(D: Tensor, SD: Tensor, P: Tensor) -> float:
    return float(((0.5 * SD - P) * D).sum(dtype=torch.float64))


def _largest_eigenvalue(S: Tensor, inverse_root: Tensor) -> Tensor:
    """Of ``diag(r) S diag(r)``, by power iteration from a fixed start."""
    vector = torch.linspace(1, 2, S.shape[0], dtype=S.dtype, device=S.device)
    for _ in range(POWER_ITERATIONS):
        vector = inverse_root * (S @ (inverse_root * vector))
        norm = vector.norm()
        vector = vector / norm.clamp(min=torch.finfo(S.dtype).tiny)
    return norm.clamp(min=1.0)  # a unit diagonal: the largest eigenvalue is at least 1
