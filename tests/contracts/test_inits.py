"""The contract of every initialisation, found by its file, for each choice of signs: unit atoms of the right
signs, the same for the same seed."""

from __future__ import annotations

import pytest
import torch
import yaml
from commands import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from seminmf_lightning.core.constraints import CONSTRAINTS, Constraint
from seminmf_lightning.core.discovery import available, build, spec_of
from seminmf_lightning.core.linalg import row_space
from seminmf_lightning.core.objective import squared_error
from seminmf_lightning.inits import Init

pytestmark = [
    pytest.mark.parametrize("name", available(Init)),
    pytest.mark.parametrize("constraint", CONSTRAINTS.values(), ids=list(CONSTRAINTS)),
]


def start(
    name: str, constraint: Constraint, A: torch.Tensor, k: int, *, positive: bool = False, seed: int = 0
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return build(Init, name).start(A, k, generator, constraint=constraint, positive=positive)


def test_settings_survive_a_file_and_are_those_of_the_yaml(name: str, constraint: Constraint) -> None:
    init = build(Init, name)
    assert build(Init, spec_of(init)) == init
    assert yaml.safe_load((ROOT / "configs" / "init" / f"{name}.yaml").read_text()) == spec_of(init)


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 9), st.integers(1, 20), st.booleans())
@settings(max_examples=15)
def test_atoms_have_the_right_signs_and_length_one(
    name: str, constraint: Constraint, seed: int, k: int, d: int, m: int, single: bool
) -> None:
    A = torch.randn(m, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    A[m // 2 :: 3] = 0
    A = A.float() if single else A
    A = A.abs() if constraint.nonnegative_atoms and constraint.nonnegative_codes else A
    given_A = A.clone()
    D = start(name, constraint, A, k)
    assert D.shape == (k, d) and D.dtype == torch.float64
    assert not constraint.forbidden(D).any()
    assert torch.allclose(D.norm(dim=1), torch.ones(k, dtype=torch.float64))
    assert torch.equal(A, given_A)


def test_the_seed_decides(name: str, constraint: Constraint, signed: torch.Tensor) -> None:
    A = signed.abs()
    assert torch.equal(start(name, constraint, A, 8, seed=3), start(name, constraint, A, 8, seed=3))


def test_rows_that_are_all_zero(name: str, constraint: Constraint) -> None:
    D = start(name, constraint, torch.zeros(5, 4), 3)
    assert not constraint.forbidden(D).any()


def test_no_entry_is_zero_where_that_is_asked_for(
    name: str, constraint: Constraint, signed: torch.Tensor
) -> None:
    if constraint.nonnegative_atoms and constraint.nonnegative_codes:
        assert (start(name, constraint, signed.abs(), 10, positive=True) > 0).all()


def test_a_refined_start_is_at_least_as_good(name: str, constraint: Constraint, signed: torch.Tensor) -> None:
    A = signed.double().abs()
    C = A.T @ A
    D = build(Init, name).refine(C, 6, constraint)
    if D is None or constraint.nonnegative_codes:
        return
    assert not constraint.forbidden(D).any() and D.shape[1] == 24 and len(D) <= 6
    first = start(name, constraint, A[:50], 6)
    assert squared_error(C, row_space(D)) <= squared_error(C, row_space(first)) * (1 + 1e-9)
