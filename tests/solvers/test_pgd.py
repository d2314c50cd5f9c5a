"""Projected gradient: it has no weight decay, and its power iteration is right."""

from __future__ import annotations

import torch
from optimality import kkt_residual

from seminmf_lightning.core.constraints import CONSTRAINTS
from seminmf_lightning.solvers.pgd import ProjectedGradient, _largest_eigenvalue


def test_its_fixed_point_is_a_stationary_point(signed: torch.Tensor) -> None:
    Z = torch.randn(600, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    S, P = Z.T @ Z, Z.T @ signed.double()
    D = torch.ones(4, 24, dtype=torch.float64)
    for _ in range(100):
        D = ProjectedGradient().step(D, S, P, constraint=CONSTRAINTS["dictionary"], bounded=False)
    assert kkt_residual(D, S, P, CONSTRAINTS["dictionary"], bounded=False) < 1e-9


def test_the_largest_eigenvalue_of_the_scaled_matrix() -> None:
    Z = torch.rand(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    S = Z.T @ Z
    scale = S.diagonal().rsqrt()
    exact = torch.linalg.eigvalsh(scale[:, None] * S * scale).max()
    assert torch.isclose(_largest_eigenvalue(S, scale), exact, rtol=1e-6)
