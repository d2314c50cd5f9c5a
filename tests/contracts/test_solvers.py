"""The contract of every solver: nonnegative, bounded where asked, never a rise of the objective."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optimality import kkt_residual, quadratic

from seminmf_lightning.core.discovery import available, build
from seminmf_lightning.solvers import Solver

SOLVERS = list(available(Solver))


def problem(seed: int, k: int, d: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    Z = torch.randn(50, k, generator=generator, dtype=torch.float64)
    A = torch.randn(50, d, generator=generator, dtype=torch.float64)
    D = torch.rand(k, d, generator=generator, dtype=torch.float64) + 0.01
    D = D / D.norm(dim=1, keepdim=True) * 0.9
    return D.to(dtype), (Z.T @ Z).to(dtype), (Z.T @ A).to(dtype)


def test_the_three_solvers_are_found() -> None:
    assert set(SOLVERS) >= {"mu", "pgd", "hals"}


@pytest.mark.parametrize("name", SOLVERS)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 12), st.booleans(), st.booleans())
@settings(max_examples=30, deadline=None)
def test_objective_never_rises(name: str, seed: int, k: int, d: int, single: bool, bounded: bool) -> None:
    solver = build(Solver, name)
    bounded = bounded and solver.supports_penalty
    dtype = torch.float32 if single else torch.float64
    D, S, P = problem(seed, k, d, dtype)
    kept = D.clone()
    before = quadratic(D.double(), S.double(), P.double())
    slack = 50 * torch.finfo(dtype).eps * float(S.abs().sum() + P.abs().sum() + 1)
    for _ in range(4):
        D_next = solver.step(D, S, P, bounded=bounded)
        after = quadratic(D_next.double(), S.double(), P.double())
        assert float(after) <= float(before) + slack
        assert (D_next >= 0).all()
        assert not bounded or (D_next.norm(dim=1) <= 1).all()
        D, before = D_next, after
    assert not torch.equal(kept, D) or d * k == 0


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("name", [name for name in SOLVERS if available(Solver)[name].supports_penalty])
def test_reaches_a_stationary_point(name: str, bounded: bool) -> None:
    D, S, P = problem(1, 5, 8, torch.float64)
    for _ in range(300):
        D = build(Solver, name).step(D, S, P, bounded=bounded)
    assert kkt_residual(D, S, P, bounded=bounded) < 1e-6


def test_hals_equals_a_naive_sweep() -> None:
    D, S, P = problem(2, 4, 6, torch.float64)
    naive = D.clone()
    for j in range(4):
        for column in range(6):
            rest = P[j, column] - sum(S[j, i] * naive[i, column] for i in range(4) if i != j)
            naive[j, column] = max(0.0, float(rest / S[j, j]))
    assert torch.allclose(build(Solver, "hals").step(D, S, P, bounded=False), naive)


def test_mu_refuses_bounded_atoms_and_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="unknown solver 'adam'.* accepted: hals, mu, pgd"):
        build(Solver, "adam")
    with pytest.raises(TypeError, match="'sweps'; did you mean 'sweeps'"):
        build(Solver, {"name": "hals", "sweps": 2})
    with pytest.raises(ValueError, match="at least 1"):
        build(Solver, {"name": "hals", "sweeps": 0})


def test_mu_keeps_zeros_where_nothing_stands_against_growth() -> None:
    """Denominator 0, numerator not: codes of an atom whose entry is zero, and of one sign with every row
    there."""
    S, P = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double(), torch.full((2, 2), 100.0).double()
    D = build(Solver, "mu").step(torch.tensor([[0.0, 1.0], [1.0, 1.0]]).double(), S, P, bounded=False)
    assert D.isfinite().all()
    assert D[0, 0] == 0
