"""From sums to a dictionary: starts, certificates, odd data."""

from __future__ import annotations

import itertools
import math

import lightning
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seminmf_lightning import ActivationDataModule, SemiNMFModule
from seminmf_lightning.core import sums as statistics
from seminmf_lightning.core.discovery import available
from seminmf_lightning.core.linalg import row_space
from seminmf_lightning.core.objective import squared_error
from seminmf_lightning.core.sums import CodeStatistics
from seminmf_lightning.inits import Init
from seminmf_lightning.learners import Learner, Recipe, make_learner
from seminmf_lightning.learners.penalty import PenaltyTuner


def learn(A: torch.Tensor, steps: int = 100, **recipe: object) -> tuple[Learner, torch.Tensor]:
    learner = make_learner(Recipe(**recipe), A.shape[1])  # type: ignore[arg-type]
    D = learner.initialise(A)
    for _ in range(1 if learner.single_epoch else 10):
        for rows in A.split(128):
            learner.observe(rows, D)
            learner.absorb()
            D = learner.improve(D)
        D = learner.end_epoch(D)
    for _ in range(steps if learner.single_epoch else 0):
        D = learner.improve(D)
    return learner, D


def test_the_error_from_the_second_moment_is_that_of_the_codes(signed: torch.Tensor) -> None:
    A = signed.double()
    D = torch.rand(5, 24, dtype=torch.float64)
    naive = (A - A @ torch.linalg.pinv(D) @ D).square().sum()
    assert torch.allclose(squared_error(A.T @ A, row_space(D)), naive)


@settings(deadline=None)
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


@pytest.mark.parametrize("penalty", [0.0, 0.1])
@pytest.mark.parametrize(
    "case", ["zero rows", "zero columns", "twice", "tiny", "huge", "outlier", "wide", "constant"]
)
def test_odd_data_simply_works(signed: torch.Tensor, case: str, penalty: float) -> None:
    A, k = signed.clone(), 8
    if case == "zero rows":
        A[::2] = 0
    elif case == "zero columns":
        A[:, ::3] = 0
    elif case == "twice":
        A[1::2] = A[::2]
    elif case == "tiny":
        A *= 1e-20
    elif case == "huge":
        A *= 1e20
    elif case == "outlier":
        A[:, 0] *= 1000
    elif case == "wide":
        k = 40
    else:
        A[:, 0] = 3.0
    with pytest.warns(UserWarning, match="fits anything") if k > 24 and penalty == 0 else _nothing():
        learner, D = learn(A, steps=20, nb_concepts=k, solver="pgd", l1_penalty=penalty)
    assert D.isfinite().all()
    assert (D >= 0).all()
    assert learner.mean_squared_error(D) <= float(A.double().square().mean()) * (1 + 1e-6)


class _nothing:  # noqa: N801
    def __enter__(self) -> None: ...

    def __exit__(self, *exc: object) -> None: ...


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_state_continues_bit_for_bit(signed: torch.Tensor, penalty: float) -> None:
    recipe = Recipe(nb_concepts=6, solver="hals", l1_penalty=penalty)
    first = make_learner(recipe, 24)
    D = first.initialise(signed)
    first.observe(signed[:100], D)
    first.absorb()
    D = first.improve(D)
    second = make_learner(recipe, 24)
    second.attach_sample(signed, first.normalizer)
    second.load_state_dict(first.state_dict())
    E = D.clone()
    for learner in (first, second):
        learner.observe(signed[100:300], D)
        learner.absorb()
    assert torch.equal(first.improve(D), second.improve(E))


def test_dead_atoms_are_pointed_elsewhere(signed: torch.Tensor) -> None:
    learner = make_learner(Recipe(nb_concepts=6, solver="hals", l1_penalty=0.05), 24)
    D = learner.initialise(signed)
    D[0] = 0
    for _ in range(20):
        learner.observe(signed, D)
        learner.absorb()
        D = learner.improve(D)
    assert learner.replaced >= 1
    assert D[0].norm() > 0.1


@settings(deadline=None)
@given(st.floats(0.5, 60), st.floats(1e-3, 10), st.floats(0.3, 3), st.floats(20, 500))
def test_the_penalty_of_a_wanted_number_of_nonzeros_is_found(
    target: float, middle: float, power: float, most: float
) -> None:
    def count(penalty: float) -> float:
        return most / (1 + (penalty / middle) ** power)

    if not count(1e3) < 0.9 * target < 1.1 * target < count(1e-6):
        return
    tuner = PenaltyTuner(target)
    tuner.search(count)
    assert tuner.usable
    assert math.isclose(count(tuner.penalty), tuner.held_out)


def test_target_l0_is_met_on_held_out_rows(signed: torch.Tensor) -> None:
    learner = make_learner(Recipe(nb_concepts=16, solver="hals", target_l0=4), 24)
    D = learner.initialise(signed[:500], signed[500:])
    for _ in range(5):
        for rows in signed[:500].split(100):
            learner.observe(rows, D)
            learner.absorb()
            D = learner.improve(D)
        D = learner.end_epoch(D)
    Z = learner.encoder.precise(D)(learner.normalizer.apply(signed[500:]))
    assert float((Z != 0).sum(dim=1).float().mean()) == pytest.approx(4, rel=0.05)
    assert (
        learner.plain_recipe()["l1_penalty"]
        == learner.plain_recipe()["encoder"]["l1_penalty"]
        == learner.penalty
    )


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"target_l0": 9}, "target_l0=9 is more than nb_concepts=8"),
        ({"target_l0": 0}, "target_l0"),
        ({"target_l0": 4, "l1_penalty": 0.1}, "give one"),
        ({"target_l0": 4, "solver": "mu"}, "solver=hals or solver=pgd"),
        (
            {"l1_penalty": 0.1, "encoder": {"name": "omp"}},
            "encoder=omp takes no penalty: use encoder=lasso or encoder=auto",
        ),
        ({"encoder": {"name": "omp", "nonzeros": 0}}, "encoder.nonzeros"),
        ({"encoder": {"name": "omp", "nonzeros": 4}, "statistics": "second_moment"}, "second_moment"),
    ],
)
def test_contradictions_are_refused(recipe: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Recipe(nb_concepts=8, **recipe)


def test_what_only_the_data_shows_is_refused_too(signed: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="nonzeros=9 is more than"):
        make_learner(Recipe(nb_concepts=8, encoder={"name": "omp", "nonzeros": 9}), 24)
    with pytest.raises(ValueError, match="every code zero"):
        make_learner(Recipe(nb_concepts=8, l1_penalty=50.0), 24).initialise(signed)


@pytest.mark.parametrize("recipe", [{"l1_penalty": 0.1}, {"encoder": {"name": "omp", "nonzeros": 3}}])
def test_the_batch_size_does_not_change_the_dictionary(recipe: dict, signed: torch.Tensor) -> None:
    rows = signed.repeat(4, 1) + 0.1 * torch.randn(2400, 24, generator=torch.Generator().manual_seed(1))
    dictionaries = []
    for size in (128, 512, 1024, 2048):
        module = SemiNMFModule(12, solver="hals", tol=0, **recipe)
        trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(module, ActivationDataModule(rows, batch_size=size))
        dictionaries.append(module.dictionary.detach())
    assert all((D - dictionaries[0]).abs().max() < 1e-5 for D in dictionaries)


def test_hardly_an_atom_is_dead_where_there_are_four_times_more_than_features(signed: torch.Tensor) -> None:
    learner, D = learn(signed.repeat(20, 1), nb_concepts=96, solver="hals", l1_penalty=0.05)
    Z = learner.encoder.precise(D)(learner.normalizer.apply(signed))
    assert float((Z == 0).all(dim=0).float().mean()) < 0.01


def test_codes_that_are_all_zero_are_said_to_be(signed: torch.Tensor) -> None:
    learner = make_learner(Recipe(nb_concepts=8, l1_penalty=1.5), 24)
    signed[0] *= 10  # one row that the penalty does not silence, whatever the atoms; it is not trained on
    D = learner.initialise(signed)
    learner.observe(0.1 * signed[1:], D)
    learner.absorb()
    with pytest.warns(UserWarning, match="every code of this epoch was zero"):
        learner.end_epoch(D)


@pytest.mark.parametrize("recipe", [{}, {"l1_penalty": 0.1}])
def test_a_loader_of_anything_that_begins_with_rows_will_do(recipe: dict, signed: torch.Tensor) -> None:
    labelled = torch.utils.data.TensorDataset(signed, torch.arange(600), torch.ones(600))
    module = SemiNMFModule(8, solver="hals", **recipe)
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(labelled, batch_size=100))
    assert module.dictionary.norm(dim=1).min() > 0
    assert module.rows_seen == 600 * (1 if not recipe else 2)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 30), st.integers(1, 40), st.floats(0, 1), st.integers(0, 99))
def test_products_from_nonzeros_are_the_dense_ones(rows: int, concepts: int, share: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    Z = torch.randn(rows, concepts, generator=generator) * (
        torch.rand(rows, concepts, generator=generator) < share
    )
    A, D = torch.randn(rows, 7, generator=generator), torch.rand(concepts, 7, generator=generator)
    sparse, dense = CodeStatistics.empty(concepts, 7), CodeStatistics.empty(concepts, 7)
    for sums, work in ((sparse, 0), (dense, 10**9)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(statistics, "PAIR_WORK", work)
            sums.add_rows_(A, Z, D)
            sums.add_rows_(A, Z, D)
    for name, value in dense.tensors().items():
        assert torch.allclose(sparse.tensors()[name], value, rtol=1e-12, atol=1e-12), name
    assert torch.allclose(dense.gram, 2 * Z.double().T @ Z.double())
