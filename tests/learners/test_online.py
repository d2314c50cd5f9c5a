"""Learning from codes: dead atoms, batch sizes, the tuned penalty."""

from __future__ import annotations

import lightning
import pytest
import torch
from learning import learn

from seminmf_lightning import ActivationDataModule, SemiNMFModule
from seminmf_lightning.core.constraints import Constraint
from seminmf_lightning.learners import Recipe, make_learner, online
from seminmf_lightning.solvers import StatisticsSolver


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
    "recipe",
    [{"l1_penalty": 0.1}, *({"encoder": {"name": name, "nonzeros": 3}} for name in ("omp", "threshold"))],
)
def test_the_batch_size_does_not_change_the_dictionary(recipe: dict, signed: torch.Tensor) -> None:
    rows = signed.repeat(4, 1) + 0.1 * torch.randn(2400, 24, generator=torch.Generator().manual_seed(1))
    dictionaries = []
    for size in (128, 512, 1024, 2048):
        module = SemiNMFModule(12, solver="hals", tol=0, **recipe)
        trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=3, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
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


def test_a_replaced_atom_starts_again(signed: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its silence is counted from zero, so that it is not replaced again at once; its sums are dropped."""
    monkeypatch.setattr(online, "DEAD_ROWS", 1000)
    learner = make_learner(Recipe(nb_concepts=6, solver=Still(), l1_penalty=0.05), 24)
    D = learner.initialise(signed)
    D[2] = 0  # never used, and this solver leaves every atom as it is
    for count in range(1, 8):
        D[2] = 0
        learner.observe(signed[:500], D)
        learner.absorb()
        D = learner.improve(D)
        assert learner.replaced == count // 2
        assert bool(D[2].norm() > 0) == (count % 2 == 0)
        if count % 2 == 0:
            assert (
                not learner.total.tensors()["gram"][2].any() and not learner.total.tensors()["cross"][2].any()
            )


class Still(StatisticsSolver):
    """A solver that changes nothing."""

    def step(
        self, D: torch.Tensor, S: torch.Tensor, P: torch.Tensor, *, constraint: Constraint, bounded: bool
    ) -> torch.Tensor:
        return D.clone()


def test_old_sums_are_forgotten_at_the_stated_rate(signed: torch.Tensor) -> None:
    learner = make_learner(Recipe(nb_concepts=6, l1_penalty=0.05), 24)
    D = learner.initialise(signed)
    gram, seen = torch.zeros(6, 6, dtype=torch.float64), 0
    for rows in signed.split([100, 0, 300, 200]):
        learner.observe(rows, D)
        Z = learner.encode_for_training(learner.normalizer.apply(rows), D).double()
        learner.absorb()
        seen += len(rows)
        gram = (1 - len(rows) / seen) ** 5 * gram + Z.T @ Z
        assert torch.allclose(learner.total.tensors()["gram"], gram)
        assert learner.rows_seen == seen


@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
def test_rows_that_are_not_finite_leave_the_sums_alone(signed: torch.Tensor, fault: float) -> None:
    for penalty in (0.0, 0.1):
        learner = make_learner(Recipe(nb_concepts=6, l1_penalty=penalty), 24)
        D = learner.initialise(signed)
        learner.observe(signed[:50], D)
        before = learner.pending.flat()
        rows = signed[50:60].clone()
        rows[3, 4] = fault
        with pytest.raises(FloatingPointError):
            learner.observe(rows, D)
        assert torch.equal(learner.pending.flat(), before)


def test_metrics_of_a_batch_are_those_of_its_codes(signed: torch.Tensor) -> None:
    learner = make_learner(Recipe(nb_concepts=6, l1_penalty=0.1), 24)
    D = learner.initialise(signed)
    learner.observe(signed, D)
    learner.absorb()
    rows = learner.normalizer.apply(signed)
    Z = learner.encoder.training(D, learner.effort)(rows)
    error, squares = (rows - Z @ D).double().square().sum(), rows.double().square().sum()
    objective = 0.5 * error + 0.1 * Z.double().abs().sum()
    assert learner.mean_squared_error(D) == pytest.approx(
        float(error) / signed.numel() * learner.normalizer.scale**2
    )
    assert learner.unexplained(D) == pytest.approx(float(objective / (0.5 * squares)))


def test_convergence_is_a_small_decrease_over_an_epoch(signed: torch.Tensor) -> None:
    learner = make_learner(Recipe(nb_concepts=6, l1_penalty=0.1, tol=0.05), 24)
    D = learner.initialise(signed)
    objectives: list[float] = []
    for _ in range(30):
        total = 0.0
        for rows in signed.split(200):
            learner.observe(rows, D)
            sums = learner.pending.tensors()
            total += float(0.5 * sums["squared_error"] + 0.1 * sums["l1_norm"])
            learner.absorb()
            D = learner.improve(D)
        D = learner.end_epoch(D)
        objectives.append(total / len(signed))
        small = len(objectives) > 1 and objectives[-2] - objectives[-1] <= 0.05 * objectives[-2]
        assert learner.converged() == small
    assert learner.converged()
