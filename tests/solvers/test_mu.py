"""Multiplicative updates: the rule as published, its zeros, and what it cannot do."""

from __future__ import annotations

import pytest
import torch
from small_problems import solver_problem

from seminmf_lightning.core.constraints import CONSTRAINTS
from seminmf_lightning.solvers.mu import MultiplicativeUpdate


def test_one_update_is_the_published_rule() -> None:
    D, S, P = solver_problem(2, 3, 4, torch.float64)
    expected = torch.empty_like(D)
    for j in range(3):
        for column in range(4):
            up, down = max(float(P[j, column]), 0.0), max(-float(P[j, column]), 0.0)
            for i in range(3):
                up += max(-float(S[j, i]), 0.0) * float(D[i, column])
                down += max(float(S[j, i]), 0.0) * float(D[i, column])
            expected[j, column] = float(D[j, column]) * (up / down) ** 0.5
    assert torch.allclose(
        MultiplicativeUpdate(inner_steps=1).step(
            D, S, P, constraint=CONSTRAINTS["dictionary"], bounded=False
        ),
        expected,
    )


def test_bounded_atoms_are_refused() -> None:
    D, S, P = solver_problem(2, 3, 4, torch.float64)
    with pytest.raises(ValueError, match="cannot bound the atoms"):
        MultiplicativeUpdate().step(D, S, P, constraint=CONSTRAINTS["dictionary"], bounded=True)


def test_zeros_stay_where_the_denominator_is_zero() -> None:
    """An entry that is zero, and codes of an atom that have one sign with every row."""
    S, P = torch.eye(2, dtype=torch.float64), torch.full((2, 2), 100.0, dtype=torch.float64)
    D = torch.tensor([[0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    D = MultiplicativeUpdate().step(D, S, P, constraint=CONSTRAINTS["dictionary"], bounded=False)
    assert D.isfinite().all()
    assert D[0, 0] == 0
