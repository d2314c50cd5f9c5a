"""Small random problems for the tests of solvers and encoders."""

from __future__ import annotations

import torch
from torch import Tensor

from seminmf_lightning.core.constraints import CONSTRAINTS, Constraint

DEFECTS = ("none", "zero atom", "repeated atom")


def rows_and_atoms(
    seed: int, k: int, d: int, defect: str = "none", *, nonnegative: bool = True
) -> tuple[Tensor, Tensor]:
    """Return rows A (30, d) of mean norm 1 and unit atoms D (k, d), nonnegative or not, in float64."""
    generator = torch.Generator().manual_seed(seed)
    D = torch.rand(k, d, generator=generator, dtype=torch.float64)
    A = torch.randn(30, d, generator=generator, dtype=torch.float64)
    D = D if nonnegative else D - 0.5
    D = D / D.norm(dim=1, keepdim=True)
    if defect == "zero atom":
        D[0] = 0
    if defect == "repeated atom":
        D[-1] = D[0]
    return A / A.norm(dim=1).mean(), D


def solver_problem(
    seed: int, k: int, d: int, dtype: torch.dtype, constraint: Constraint = CONSTRAINTS["dictionary"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a dictionary D (k, d) inside the unit ball and the sums S, P of random codes and rows."""
    generator = torch.Generator().manual_seed(seed)
    Z = torch.randn(50, k, generator=generator, dtype=torch.float64)
    A = torch.randn(50, d, generator=generator, dtype=torch.float64)
    D = torch.rand(k, d, generator=generator, dtype=torch.float64) + 0.01
    D = D if constraint.nonnegative_atoms else D - 0.5
    Z = Z.abs() if constraint.nonnegative_codes else Z
    A = A.abs() if constraint.nonnegative_atoms and constraint.nonnegative_codes else A
    D = D / D.norm(dim=1, keepdim=True) * 0.9
    return D.to(dtype), (Z.T @ Z).to(dtype), (Z.T @ A).to(dtype)
