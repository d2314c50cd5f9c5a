"""Whatever the rows are, a dictionary is at least as good as none, and metrics are those of the dictionary as
it is used."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from bounded import bounded
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from seminmf_lightning import SemiNMF
from seminmf_lightning.core.discovery import available
from seminmf_lightning.encoders.least_squares import LeastSquares
from seminmf_lightning.inits import Init
from seminmf_lightning.learners import Learner, Recipe, make_learner
from seminmf_lightning.solvers import StatisticsSolver
from seminmf_lightning.training.divergence import Guard, symptom

pytestmark = pytest.mark.filterwarnings(
    "ignore:nb_concepts=.*fits anything", "ignore:every code of this epoch"
)
OURS = {
    name: kind
    for name, kind in available(StatisticsSolver).items()
    if kind.__module__.startswith("seminmf_lightning.")
}
"""Not those that other tests define."""
SOLVERS, INITS, STEPS = list(OURS), list(available(Init)), 40
SPOILS = (
    "nothing",
    "zero rows",
    "repeated rows",
    "zero columns",
    "constant columns",
    "positive",
    "nearly constant",
    "one outlier",
    "all zero",
)


class Problem(NamedTuple):
    """Rows by what they are made of: printed when a property fails."""

    seed: int
    n: int
    d: int
    distinct: int
    rank: int
    spoil: str
    exponent: int
    dtype: torch.dtype

    def rows(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        A = torch.randn(self.distinct, self.rank, generator=generator) @ torch.randn(
            self.rank, self.d, generator=generator
        )
        A = A[torch.randint(self.distinct, (self.n,), generator=generator)].double()
        if self.spoil == "zero rows":
            A[1::2] = 0
        elif self.spoil == "repeated rows":
            A[self.n // 2 :] = A[0].clone()
        elif self.spoil == "zero columns":
            A[:, 1::2] = 0
        elif self.spoil == "constant columns":
            A[:, ::2] = 3.0
        elif self.spoil == "positive":
            A = A.abs()
        elif self.spoil == "nearly constant":  # atoms of init=svd are then nearly collinear
            A = 1 + 1e-3 * A
        elif self.spoil == "one outlier":
            A[0] *= 1e4
        elif self.spoil == "all zero":
            A[:] = 0
        A = A * 10.0**self.exponent
        largest = torch.finfo(self.dtype).max
        return A.clamp(-largest, largest).to(self.dtype)


problems = st.builds(
    Problem,
    seed=st.integers(0, 999), n=st.integers(1, 60), d=st.integers(1, 12), distinct=st.integers(1, 30),
    rank=st.integers(1, 12),
    spoil=st.sampled_from(SPOILS), exponent=st.integers(-12, 12),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
)  # fmt: skip


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, Any]:
    penalty = draw(st.sampled_from([0.0, 0.0, 0.02, 0.3]))
    able = [name for name in SOLVERS if penalty == 0 or OURS[name].supports_penalty]
    recipe = {
        "nb_concepts": draw(st.integers(1, 16)), "seed": draw(st.integers(0, 9)), "l1_penalty": penalty,
        "solver": draw(st.sampled_from(able)), "init": draw(st.sampled_from(INITS)),
        "normalize": draw(st.sampled_from(["scale", "center", "none"])),
    }  # fmt: skip
    if recipe["normalize"] == "none" and penalty > 0:
        recipe["normalize"] = "scale"  # a penalty in units of the data could be anything beside these
    if penalty > 0:
        recipe["encoder"] = draw(st.sampled_from(["auto", {"name": "lasso", "refit": True}]))
    else:
        recipe["encoder"] = draw(st.sampled_from(["auto", "auto", {"name": "omp", "nonzeros": 1}]))
    return recipe


def learn(A: Tensor, *, steps: int = STEPS, passes: int = 3, **recipe: Any) -> tuple[Learner, Tensor]:
    learner = make_learner(Recipe(**recipe), A.shape[1])
    A = A if A.dtype in (torch.float32, torch.float64) else A.float()
    D, guard = learner.initialise(A), Guard()
    for _ in range(1 if learner.single_epoch else passes):
        for rows in A.split(16):
            learner.observe(rows, D)
            learner.absorb()
            D = learner.improve(D)
            assert guard.check_progress(learner, D, 0, end_of_epoch=False) is None
        D = learner.end_epoch(D)
        assert guard.check_progress(learner, D, 0, end_of_epoch=True) is None
    for _ in range(steps if learner.single_epoch else 0):
        D = learner.improve(D)
    return learner, D


def mean_square(x: Tensor) -> float:
    return float(x.double().square().mean())


def check_learner(problem: Problem, recipe: dict[str, Any], statistics: str) -> None:
    A = problem.rows().double()
    learner, D = learn(problem.rows(), **recipe, statistics=statistics)
    assert symptom(learner, D) is None
    assert D.isfinite().all()
    assert (D >= 0).all()
    assert not learner.recipe.bounded or (D.norm(dim=1) <= 1).all()
    D = D.double()
    N = learner.normalizer.apply(problem.rows().to(torch.promote_types(problem.dtype, torch.float32)))
    Z = learner.encoder.precise(D.float(), learner.effort)(N)  # as the file of the run has it
    assert Z.isfinite().all()
    centred = A if learner.normalizer.mean is None else A - learner.normalizer.mean
    nothing = mean_square(centred)
    left = mean_square(A - learner.normalizer.undo(Z.double() @ D))
    assert left <= nothing * (1 + 1e-6)
    if getattr(learner.encoder, "refit", False):
        return  # such codes have a lower error, not a lower objective
    objective = (
        0.5 * mean_square(N - Z.double() @ D)
        + recipe["l1_penalty"] * float(Z.double().abs().sum()) / N.numel()
    )
    assert objective <= 0.5 * mean_square(N) * (1 + 1e-6)
    if learner.single_epoch:  # the estimator's property covers the rounding of float32 codes
        exact = learner.encoder.precise(D.float())(N.double())
        left = mean_square(A - learner.normalizer.undo(exact @ D))
        # Float32 rows are rounded when their mean is subtracted.
        assert learner.mean_squared_error(D) == pytest.approx(left, rel=1e-4, abs=1e-9 * mean_square(A))


def check_estimator(problem: Problem, recipe: dict[str, Any]) -> None:
    A = problem.rows()
    model = SemiNMF(**recipe)
    if problem.n < recipe["nb_concepts"]:
        with pytest.raises(ValueError, match="more than the"):
            model.fit(A)
        return
    Z, D = model.fit(A, max_iter=STEPS if recipe["l1_penalty"] == 0 else 3)
    assert torch.equal(model.encode(A), Z)
    for found in (Z, D, model.decode(Z)):
        assert found.isfinite().all()
    mean = 0 if model.normalizer.mean is None else model.normalizer.mean
    nothing = mean_square(A.double() - mean)
    floor = 1e-9 * mean_square(A)  # rounding of float32 rows, codes and mean
    assert mean_square(A.double() - model.decode(Z)) <= nothing * (1 + 1e-6) + floor
    metrics = model.evaluate(A)
    assert metrics["reconstruction_loss"] == pytest.approx(
        mean_square(A.double() - model.decode(Z)), rel=1e-3, abs=floor
    )
    assert torch.tensor(list(metrics.values())).isfinite().all()


@given(st.integers(0, 999), st.floats(1e-8, 1), st.sampled_from([(5, 24), (24, 24), (30, 24)]))
@settings(max_examples=40)
def test_the_figure_of_collinear_atoms_is_that_of_their_codes(
    seed: int, apart: float, shape: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(200, 24, generator=generator) @ torch.randn(24, 24, generator=generator)
    learner = make_learner(Recipe(nb_concepts=shape[0]), 24)
    learner.initialise(A)
    common = torch.rand(24, generator=generator, dtype=torch.float64)
    D = learner.prepare(common + apart * torch.rand(shape, generator=generator, dtype=torch.float64))
    N, encode = learner.normalizer.apply(A), LeastSquares().precise(D.float())
    figure = learner.mean_squared_error(D) / learner.normalizer.scale**2
    assert mean_square(N.double() - encode(N.double()) @ D) == pytest.approx(figure, rel=1e-4, abs=1e-9)
    assert mean_square(N - encode(N) @ D.float()) == pytest.approx(
        figure, rel=1e-2, abs=1e-3 * mean_square(N)
    )
    new = torch.randn(200, 24, generator=generator)
    assert mean_square(new - encode(new) @ D.float()) <= mean_square(new) * 1.001


FEW_DISTINCT = Problem(1, 400, 24, 5, 24, "nothing", 0, torch.float32)
PLAIN = {"nb_concepts": 8, "init": "data", "seed": 1, "l1_penalty": 0.0, "normalize": "scale"}
QUICK = settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
LONG = settings(QUICK, max_examples=bounded(5000, 600))
STATISTICS = st.sampled_from(["auto", "auto", "codes"])


@given(problems, recipes(), STATISTICS)
@example(FEW_DISTINCT, PLAIN | {"solver": "pgd"}, "auto")
@QUICK
def test_a_dictionary_is_better_than_none_and_figures_are_those_of_its_codes(
    problem: Problem, recipe: dict[str, Any], statistics: str
) -> None:
    check_learner(problem, recipe, statistics)


@given(problems, recipes())
@example(FEW_DISTINCT, PLAIN | {"solver": "mu"})
@QUICK
def test_the_estimator_encodes_and_decodes_whatever_it_was_fitted_to(
    problem: Problem, recipe: dict[str, Any]
) -> None:
    check_estimator(problem, recipe)


@pytest.mark.slow
@given(problems, recipes(), STATISTICS)
@LONG
def test_many_learners(problem: Problem, recipe: dict[str, Any], statistics: str) -> None:
    check_learner(problem, recipe, statistics)


@pytest.mark.slow
@given(problems, recipes())
@LONG
def test_many_estimators(problem: Problem, recipe: dict[str, Any]) -> None:
    check_estimator(problem, recipe)
