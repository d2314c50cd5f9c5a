"""Small promises of the online learner and of the penalty's tuner."""

from __future__ import annotations

import pytest
import torch

from seminmf_lightning.core import compiled, memory
from seminmf_lightning.core.sparse_codes import SparseCodes
from seminmf_lightning.encoders.lasso import Lasso
from seminmf_lightning.learners import Recipe, make_learner
from seminmf_lightning.learners.online import OnlineLearner
from seminmf_lightning.learners.penalty import PenaltyTuner


def test_atoms_of_length_one_leave_the_objective_as_it_is() -> None:
    generator = torch.Generator().manual_seed(0)
    learner = make_learner(Recipe(nb_concepts=4, nonnegative="codes"), 6)
    assert isinstance(learner, OnlineLearner)
    Z, D = torch.rand(30, 4, generator=generator), torch.randn(4, 6, generator=generator)
    D[2] = 0
    learner.total.add_rows_(torch.randn(30, 6, generator=generator), SparseCodes.of(Z), D)
    S, P = learner.total.gram.clone(), learner.total.cross.clone()
    unit = learner._with_unit_atoms(D)
    assert torch.allclose(unit.norm(dim=1), torch.tensor([1.0, 1.0, 0.0, 1.0]))
    E, F = D.double(), unit.double()
    assert torch.allclose((E.T @ S @ E), (F.T @ learner.total.gram @ F), rtol=1e-5)
    assert torch.allclose(E.T @ P, F.T @ learner.total.cross, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("broken", ["S", "P", "none"])
def test_numbers_that_are_not_finite_name_their_cause(broken: str) -> None:
    learner = make_learner(Recipe(nb_concepts=2, l1_penalty=0.1), 3)
    S, P, D = torch.eye(2), torch.ones(2, 3), torch.ones(2, 3)
    if broken == "S":
        S = S * torch.inf
    if broken == "P":
        P = P * torch.nan
    if broken == "none":
        D = D * torch.nan
    message = "solver=hals returned" if broken == "none" else "the statistics of the codes hold"
    with pytest.raises(FloatingPointError, match=message):
        learner.solver_step(D, S, P)


def test_a_tuner_is_usable_near_its_target_only() -> None:
    tuner = PenaltyTuner(target=10)
    assert not tuner.usable
    for nonzeros, usable in ((10.4, True), (9.6, True), (10.6, False), (15.0, False), (5.0, False)):
        tuner.held_out = nonzeros
        assert tuner.usable == usable


def test_the_penalty_follows_the_nonzeros_slowly() -> None:
    tuner = PenaltyTuner(target=10)
    before = tuner.penalty
    tuner.follow(20)
    assert before < tuner.penalty < 1.2 * before
    tuner.follow(5)
    tuner.follow(5)
    assert tuner.penalty < before


def test_a_row_that_needs_more_iterations_keeps_its_best_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "njit", None)
    generator = torch.Generator().manual_seed(0)
    D = torch.nn.functional.normalize(torch.rand(30, 12, generator=generator).double(), dim=1)
    A = torch.randn(20, 12, generator=generator).double()
    Z = Lasso(l1_penalty=0.1, max_iter=1, precise_gap=1e-12).precise(D)(A)
    objective = 0.5 * (A - Z @ D).square().sum(dim=1) + 0.1 * Z.abs().sum(dim=1)
    assert (objective <= 0.5 * A.square().sum(dim=1)).all() and (Z != 0).any()


def test_sums_larger_than_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "total_memory", lambda: 20 * 300.0**2)
    make_learner(Recipe(nb_concepts=300, l1_penalty=0.1), 24)
    with pytest.raises(ValueError, match=r"nb_concepts=301 atoms need .* GB of memory, .*solver=ksvd"):
        make_learner(Recipe(nb_concepts=301, l1_penalty=0.1), 24)
    make_learner(Recipe(nb_concepts=301, l1_penalty=0.1, solver="ksvd"), 24)
