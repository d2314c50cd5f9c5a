"""The contract of every solver, found by its file, for each choice of signs that it supports: atoms of the
right signs, bounded where asked, never a rise of the objective."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
import yaml
from commands import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from optimality import kkt_residual, quadratic
from scipy.optimize import nnls
from small_problems import solver_problem

from seminmf_lightning.core.constraints import CONSTRAINTS
from seminmf_lightning.core.discovery import available, build, spec_of
from seminmf_lightning.solvers import Solver, StatisticsSolver

SOLVERS = available(Solver)
SIGNS = [
    pytest.param(name, signs, id=f"{name}-{signs}")
    for name, kind in SOLVERS.items()
    if issubclass(kind, StatisticsSolver)
    for signs, constraint in CONSTRAINTS.items()
    if build(Solver, name).supports(constraint)
]
CONVERGENT = [param for param in SIGNS if SOLVERS[param.values[0]].supports_penalty]


@pytest.mark.parametrize("name", SOLVERS)
def test_settings_survive_a_file_and_are_those_of_the_yaml(name: str) -> None:
    solver = build(Solver, name)
    assert build(Solver, spec_of(solver)) == solver
    assert yaml.safe_load((ROOT / "configs" / "solver" / f"{name}.yaml").read_text()) == spec_of(solver)
    for field in fields(SOLVERS[name]):
        if "int" in str(field.type):
            with pytest.raises(ValueError, match=f"solver.{field.name} must be at least"):
                build(Solver, {"name": name, field.name: -1})


@pytest.mark.parametrize("name", SOLVERS)
def test_the_published_signs_are_supported(name: str) -> None:
    assert build(Solver, name).supports(CONSTRAINTS["dictionary"])


@pytest.mark.parametrize(("name", "signs"), SIGNS)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 12), st.booleans(), st.booleans())
@settings(max_examples=15)
def test_objective_never_rises(
    name: str, signs: str, seed: int, k: int, d: int, single: bool, bounded: bool
) -> None:
    solver, constraint = build(Solver, name), CONSTRAINTS[signs]
    bounded = bounded and solver.supports_penalty
    dtype = torch.float32 if single else torch.float64
    D, S, P = solver_problem(seed, k, d, dtype, constraint)
    kept = [x.clone() for x in (D, S, P)]
    before = quadratic(D.double(), S.double(), P.double())
    slack = 50 * torch.finfo(dtype).eps * float(S.abs().sum() + P.abs().sum() + 1)
    start = D
    for _ in range(4):
        D_next = solver.step(D, S, P, constraint=constraint, bounded=bounded)
        after = quadratic(D_next.double(), S.double(), P.double())
        assert float(after) <= float(before) + slack
        assert D_next.dtype == dtype and not constraint.forbidden(D_next).any()
        assert not bounded or (D_next.norm(dim=1) <= 1).all()
        D, before = D_next, after
    assert not torch.equal(start, D)
    assert all(torch.equal(x, y) for x, y in zip(kept, (start, S, P), strict=True))


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize(("name", "signs"), CONVERGENT)
def test_reaches_a_stationary_point(name: str, signs: str, bounded: bool) -> None:
    constraint = CONSTRAINTS[signs]
    D, S, P = solver_problem(1, 5, 8, torch.float64, constraint)
    for _ in range(300):
        D = build(Solver, name).step(D, S, P, constraint=constraint, bounded=bounded)
    assert kkt_residual(D, S, P, constraint, bounded=bounded) < 1e-6


@pytest.mark.parametrize(("name", "signs"), SIGNS)
def test_reaches_the_optimum_of_an_independent_solver(name: str, signs: str) -> None:
    """Without bounds the problem is one least-squares problem per feature, nonnegative or not."""
    constraint = CONSTRAINTS[signs]
    D, S, P = solver_problem(3, 4, 6, torch.float64, constraint)
    if constraint.nonnegative_atoms:
        L = np.linalg.cholesky(S.numpy())
        columns = [nnls(L.T, np.linalg.solve(L, P[:, j].numpy()))[0] for j in range(6)]
        best = float(quadratic(torch.from_numpy(np.stack(columns, axis=1)), S, P))
    else:
        best = float(quadratic(torch.linalg.solve(S, P), S, P))
    for _ in range(300):
        D = build(Solver, name).step(D, S, P, constraint=constraint, bounded=False)
    assert float(quadratic(D, S, P)) == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize(("name", "signs"), CONVERGENT)
def test_atoms_without_codes_stay_finite(name: str, signs: str, bounded: bool) -> None:
    constraint = CONSTRAINTS[signs]
    D, S, P = solver_problem(4, 5, 8, torch.float32, constraint)
    S[2], S[:, 2], P[2] = 0, 0, 0
    solver = build(Solver, name)
    assert solver.step(D, S, P, constraint=constraint, bounded=bounded).isfinite().all()
    zero = torch.zeros_like
    assert torch.equal(solver.step(D, zero(S), zero(P), constraint=constraint, bounded=bounded), D)


def test_unknown_names_and_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=f"unknown solver 'adam'.*{', '.join(SOLVERS)}"):
        build(Solver, "adam")
    with pytest.raises(TypeError, match=r"unknown argument of solver .* 'sweps'"):
        build(Solver, {"name": next(iter(SOLVERS)), "sweps": 2})
