"""HALS against a naive sweep, with and without bounds."""

from __future__ import annotations

import itertools

import pytest
import torch
from optimality import quadratic
from small_problems import solver_problem

from seminmf_lightning.core.constraints import CONSTRAINTS
from seminmf_lightning.solvers.hals import BLOCK, HALS


@pytest.mark.parametrize("bounded", [False, True])
def test_a_step_is_a_naive_sweep(bounded: bool) -> None:
    D, S, P = solver_problem(2, 4, 6, torch.float64)
    S = S + 200  # correlated codes, as every atom would move with the others otherwise
    naive = D.clone()
    for _ in range(2):
        for j in range(4):
            rest = P[j] - sum(S[j, i] * naive[i] for i in range(4) if i != j)
            naive[j] = (rest / S[j, j]).clamp(min=0)
            if bounded:
                naive[j] /= max(1.0, float(naive[j].norm()))
    assert torch.allclose(
        HALS(sweeps=2).step(D, S, P, constraint=CONSTRAINTS["dictionary"], bounded=bounded), naive
    )


def test_atoms_that_rarely_fire_together_move_together_and_the_objective_falls() -> None:
    k = 2 * BLOCK + 3
    generator = torch.Generator().manual_seed(0)
    Z = torch.randn(400, k, generator=generator, dtype=torch.float64)
    Z *= torch.rand(400, k, generator=generator) < 0.02
    A = torch.randn(400, 7, generator=generator, dtype=torch.float64)
    D = torch.full((k, 7), 0.3, dtype=torch.float64)
    S, P = Z.T @ Z, Z.T @ A
    values = [quadratic(D, S, P)]
    for _ in range(50):
        D = HALS().step(D, S, P, constraint=CONSTRAINTS["dictionary"], bounded=True)
        values.append(quadratic(D, S, P))
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(values))
    assert torch.allclose(
        D, HALS().step(D, S, P, constraint=CONSTRAINTS["dictionary"], bounded=True), atol=1e-6
    )


def test_sweeps_are_checked() -> None:
    with pytest.raises(ValueError, match=r"solver.sweeps must be at least 1"):
        HALS(sweeps=0)
