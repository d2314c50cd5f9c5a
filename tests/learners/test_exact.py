"""Learning from the second moment: sums, certificates, starts."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from learning import learn

from seminmf_lightning.core.constraints import Constraint
from seminmf_lightning.core.discovery import available
from seminmf_lightning.core.linalg import row_space
from seminmf_lightning.core.objective import squared_error
from seminmf_lightning.inits import Init
from seminmf_lightning.learners import Learner, Recipe, make_learner
from seminmf_lightning.learners.exact import ExactLearner
from seminmf_lightning.metrics import Fitted, finite_or_none
from seminmf_lightning.metrics.optimality_gap import OptimalityGap
from seminmf_lightning.solvers import StatisticsSolver


def test_the_error_from_the_second_moment_is_that_of_the_codes(signed: torch.Tensor) -> None:
    A = signed.double()
    D = torch.rand(5, 24, dtype=torch.float64)
    naive = (A - A @ torch.linalg.pinv(D) @ D).square().sum()
    assert torch.allclose(squared_error(A.T @ A, row_space(D)), naive)


@given(st.permutations(range(30)), st.integers(1, 29), st.floats(-6, 6))
def test_the_sum_over_rows_depends_neither_on_their_order_nor_on_who_adds_them(
    order: list[int], cut: int, power: float
) -> None:
    A = torch.randn(30 * 20, 6, generator=torch.Generator().manual_seed(1)) * 10**power
    blocks = A.split(20)

    def added(numbers: list[int]) -> Learner:
        learner = make_learner(Recipe(nb_concepts=3), 6)
        learner.initialise(A[:100], rows=len(A))
        for number in numbers:
            learner.observe(blocks[number], A)
        return learner

    whole, first, second = added(list(range(30))), added(order[:cut]), added(order[cut:])
    first.pending.add_(second.pending)  # as if by two processes
    for learner in (whole, first):
        learner.absorb()
    found, expected = (learner.total.tensors()["gram"] for learner in (first, whole))
    assert torch.equal(found, expected)
    assert torch.allclose(
        found, whole.normalizer.apply(A.double()).T @ whole.normalizer.apply(A.double()), rtol=1e-12
    )


@pytest.mark.parametrize("init", list(available(Init)))
@pytest.mark.parametrize("solver", ["mu", "pgd", "hals"])
def test_loss_falls_at_each_step_and_is_certified(signed: torch.Tensor, solver: str, init: str) -> None:
    learner, D = learn(signed, steps=0, nb_concepts=8, solver=solver, init=init)
    gaps = [learner.optimality_gap(D)]
    for _ in range(30):
        D = learner.improve(D)
        gaps.append(learner.optimality_gap(D))
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(gaps))
    assert gaps[-1] >= -1e-9
    assert (D >= 0).all()


@pytest.mark.parametrize("solver", ["mu", "pgd", "hals"])
def test_svd_start_is_optimal_on_nonnegative_data_and_stays_so(signed: torch.Tensor, solver: str) -> None:
    A = signed.abs() + 0.1
    learner = make_learner(Recipe(nb_concepts=6, solver=solver, init="svd"), 24)
    D = learner.initialise(A)
    assert learner.optimality_gap(D) < 1e-5
    for _ in range(20):
        D = learner.improve(D)
        assert learner.optimality_gap(D) < 1e-5


class Worsening(StatisticsSolver):
    """A solver whose every step raises the objective."""

    def step(
        self, D: torch.Tensor, S: torch.Tensor, P: torch.Tensor, *, constraint: Constraint, bounded: bool
    ) -> torch.Tensor:
        return torch.ones_like(D)


def test_a_step_that_raises_the_objective_does_not_count(signed: torch.Tensor) -> None:
    learner, D = learn(signed, nb_concepts=6)
    worse = make_learner(Recipe(nb_concepts=6, solver=Worsening()), 24)
    worse.attach_sample(signed, learner.normalizer)
    worse.load_state_dict(learner.state_dict())
    before = worse.unexplained(D)
    kept = worse.improve(D)
    assert torch.equal(kept, D)
    assert worse.unexplained(kept) == before < worse.unexplained(torch.ones_like(D))


def gaps(A: torch.Tensor, learner: Learner, D: torch.Tensor) -> tuple[float, list[float | None]]:
    """Return the gap from the rows themselves, and what learner and metric certify."""
    rows = learner.normalizer.apply(A.double())
    basis = row_space(D).basis
    bound = float(torch.linalg.svdvals(rows)[len(D) :].square().sum())
    metric = OptimalityGap(Fitted(D, learner.normalizer, least_squares=True))
    metric.update(A)
    error = float((rows - (rows @ basis) @ basis.T).square().sum())
    return error / bound - 1, [learner.optimality_gap(D), finite_or_none(metric.compute()["optimality_gap"])]


@pytest.mark.filterwarnings("ignore:no optimality gap can be certified")
@pytest.mark.parametrize("offset", [0.0, 30.0, 3e3, 4e5, 2e7])
@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize(
    ("d", "k", "dtype"), [(7, 2, torch.float64), (40, 6, torch.float32), (330, 4, torch.float32)]
)
def test_a_certificate_is_never_better_than_its_rounding(
    d: int, k: int, dtype: torch.dtype, low_rank: bool, offset: float
) -> None:
    generator = torch.Generator().manual_seed(1)
    A = torch.randn(700, d, generator=generator, dtype=torch.float64)
    if low_rank:
        A = A[:, : k - 1] @ torch.randn(k - 1, d, generator=generator, dtype=torch.float64) + 1e-5 * A
    A = (A + offset * torch.rand(d, generator=generator, dtype=torch.float64)).to(dtype)
    learner, D = learn(A, steps=20, nb_concepts=k, solver="hals")
    gap, certified = gaps(A, learner, D)
    for value in certified:
        assert value is None or value >= 0.95 * gap - 1e-6
    if offset <= 30 and not low_rank:
        assert certified == [pytest.approx(gap, rel=0.05)] * 2


def test_what_cannot_be_certified_is_said_with_the_cure(signed: torch.Tensor) -> None:
    rows = signed.double() + 1e8
    learner, D = learn(rows, steps=5, nb_concepts=4, solver="hals")
    with pytest.warns(UserWarning, match="normalize=center keeps more digits"):
        assert learner.optimality_gap(D) is None
    cured, D = learn(rows, steps=60, nb_concepts=4, solver="hals", normalize="center")
    gap, certified = gaps(rows, cured, D)
    assert certified == [pytest.approx(gap, rel=1e-3, abs=1e-6)] * 2


@pytest.mark.parametrize("k", [24, 30])
def test_enough_atoms_reach_a_gap_of_zero(signed: torch.Tensor, k: int) -> None:
    with pytest.warns(UserWarning, match="fits anything exactly"):
        learner, D = learn(signed, nb_concepts=k, solver="hals")
    assert learner.optimality_gap(D) == 0.0


def test_convergence_is_a_small_decrease_over_ten_steps(signed: torch.Tensor) -> None:
    learner, D = learn(signed, steps=0, nb_concepts=6, solver="hals", tol=0.02)
    assert isinstance(learner, ExactLearner)
    checked: list[float] = []
    for step in range(11, 400):  # learn() took steps 1 to 5 on batches, which started the count again
        D = learner.improve(D)
        if learner._steps % 10 == 0:
            checked.append(learner.unexplained(D))
            slow = len(checked) > 1 and checked[-2] - checked[-1] <= 0.02 * checked[-2]
            assert learner.converged() == slow, step
            if slow:
                break
    assert learner.converged()


@pytest.mark.parametrize("normalize", ["none", "scale", "center"])
def test_the_rows_of_the_caller_stay_as_they_are(normalize: str) -> None:
    rows = torch.tensor([[-2.0, 1.0], [3.0, 4.0]], dtype=torch.float64)
    before = rows.clone()
    make_learner(Recipe(nb_concepts=1, normalize=normalize), 2).initialise(rows)
    assert torch.equal(rows, before)
