"""Training by K-SVD sweeps: planted atoms are found, and rows may be split and training resumed anywhere."""

from __future__ import annotations

from copy import deepcopy
from threading import Barrier, Thread

import pytest
import torch
from torch import Tensor

from seminmf_lightning import SemiNMF
from seminmf_lightning.core.constraints import CONSTRAINTS
from seminmf_lightning.core.similarity import match_atoms
from seminmf_lightning.learners import Learner, Recipe, make_learner
from seminmf_lightning.learners.replacement import new_directions

CONCEPTS, FEATURES, ROWS = 40, 24, 1500


def planted(signs: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return rows of three planted unit atoms each, and the atoms."""
    generator, constraint = torch.Generator().manual_seed(seed), CONSTRAINTS[signs]
    D = constraint.random_atoms(CONCEPTS, FEATURES, generator).float()
    D = torch.nn.functional.normalize(D * (torch.rand(D.shape, generator=generator) < 0.5))
    Z = torch.zeros(ROWS, CONCEPTS)
    chosen = torch.rand(ROWS, CONCEPTS, generator=generator).topk(3, dim=1).indices
    values = 0.3 + torch.rand(ROWS, 3, generator=generator)
    if not constraint.nonnegative_codes:
        values = values * (torch.randint(2, values.shape, generator=generator) * 2 - 1)
    return Z.scatter_(1, chosen, values) @ D, D


def learner_for(A: Tensor, coarse: int = 0, **settings: object) -> tuple[Learner, Tensor]:
    solver = {"name": "ksvd", "updates": 12, "replace": 0.2, "coarse": coarse}
    recipe = Recipe(nb_concepts=12, nonnegative="codes", solver=solver, **settings)
    learner = make_learner(recipe, A.shape[1])
    return learner, learner.initialise(A, rows=len(A), epochs=12)


@pytest.mark.parametrize("signs", CONSTRAINTS)
def test_planted_atoms_are_found(signs: str) -> None:
    A, truth = planted(signs)
    A = A.abs() if signs == "both" else A  # abs changes nothing but the sign of zero
    solver = {"name": "ksvd", "updates": 80, "replace": 0.1, "trim": 4}
    model = SemiNMF(CONCEPTS, solver, l1_penalty=0.03, nonnegative=signs)
    model.fit(A, max_iter=80)
    free = CONSTRAINTS[signs].sign_is_free
    found = match_atoms(truth, model.get_dictionary(), sign_is_free=free).cosine
    generator = torch.Generator().manual_seed(1)
    random = CONSTRAINTS[signs].random_atoms(CONCEPTS, FEATURES, generator).float()
    null = match_atoms(truth, random, sign_is_free=free).cosine
    assert (found > 0.98).mean() >= 0.85 and (null > 0.98).mean() == 0, (found, null)


@pytest.mark.parametrize("settings", [{"l1_penalty": 0.05}, {"target_l0": 2}, {"target_l0": 2, "coarse": 4}])
def test_two_processes_find_the_dictionary_of_one(settings: dict) -> None:
    A = planted("codes")[0]
    alone, D = learner_for(A, **settings)
    for _ in range(6):
        alone.observe(A, D)
        alone.absorb()
        D = alone.improve(D)
    world, barrier, slots, results = 2, Barrier(2), [None, None], [D, D]

    def process(rank: int) -> None:
        learner, mine = learner_for(A, **settings)

        def add_(x: Tensor) -> None:
            slots[rank] = x.clone()
            barrier.wait()
            x.copy_(slots[0] + slots[1])
            barrier.wait()

        learner.processes.add_ = add_
        for epoch in range(6):
            cut = 700 if epoch < 4 else 0  # the first process has no rows in the end
            learner.observe(A[:cut] if rank == 0 else A[cut:], mine)
            for sums in learner.pending.tensors().values():
                add_(sums)
            learner.absorb()
            mine = learner.improve(mine)
        results[rank] = mine

    threads = [Thread(target=process, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], D)


@pytest.mark.usefixtures("both_backends")
@pytest.mark.parametrize("coarse", [0, 4])
def test_resumes_between_two_updates_bit_for_bit(coarse: int) -> None:
    A = planted("codes")[0]
    first, D = learner_for(A, coarse, l1_penalty=0.05)
    for epoch in range(5):
        first.observe(A[:900], D)
        if epoch == 3:
            state, at = deepcopy(first.state_dict()), D.clone()
        first.observe(A[900:], D)
        first.absorb()
        D = first.improve(D)
    second, _ = learner_for(A, coarse, l1_penalty=0.05)
    second.load_state_dict(state)
    for rows in (A[900:], A):
        if len(rows) == len(A):
            second.observe(rows[:900], at)
            rows = rows[900:]
        second.observe(rows, at)
        second.absorb()
        at = second.improve(at)
    assert torch.equal(at, D)


def test_the_schedule_ends_with_the_updates_planned() -> None:
    A = planted("codes")[0]
    model = SemiNMF(8, {"name": "ksvd", "updates": 5}, l1_penalty=0.1, nonnegative="codes")
    model.fit(A, max_iter=50)
    assert model.iterations == 5
    assert model.settings["l1_penalty"] == 0.1
    with pytest.warns(UserWarning, match=r"3 epochs of 1,500 rows make 3 updates, .*max_epochs to 100"):
        SemiNMF(8, "ksvd", l1_penalty=0.1, nonnegative="codes").fit(A, max_iter=3)


def test_idle_atoms_get_directions_that_residuals_share() -> None:
    A = planted("codes")[0]
    learner, D = learner_for(A, l1_penalty=0.05)
    D = D.clone()
    D[3] = 0  # has no codes, and so would stay as it is
    for _ in range(6):
        learner.observe(A, D)
        learner.absorb()
        D = learner.improve(D)
    assert learner.replaced >= 1
    learner.observe(A, D)
    assert (learner.pending.fired > 0).all()


def test_directions_are_shared_by_rows_and_not_repeated() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.nn.functional.normalize(torch.randn(3, 16, generator=generator))
    rows = torch.rand(90, 1, generator=generator).add(0.5) * truth.repeat(30, 1)
    found = new_directions(
        rows + 0.02 * torch.randn(90, 16, generator=generator), 3, 0.1, CONSTRAINTS["codes"]
    )
    assert (match_atoms(truth, found).cosine > 0.99).all()
    assert not len(new_directions(torch.zeros(4, 16), 3, 0.1, CONSTRAINTS["codes"]))


def test_coarse_atoms_keep_general_features_apart_from_special_ones() -> None:
    """Special features fire only with their general one: plain training merges the two."""
    generator, n, general_ones = torch.Generator().manual_seed(0), 4000, 12
    k = 5 * general_ones
    truth = torch.nn.functional.normalize(torch.randn(k, 40, generator=generator))
    row, Z = torch.arange(n), torch.zeros(n, k)
    for _ in range(2):
        general = torch.randint(general_ones, (n,), generator=generator)
        special = general_ones + 4 * general + torch.randint(4, (n,), generator=generator)
        both = torch.rand(n, generator=generator) < 0.75
        Z[row, general] = 1 + 0.2 * torch.randn(n, generator=generator)
        Z[row[both], special[both]] = 0.7 + 0.2 * torch.randn(int(both.sum()), generator=generator)

    def found(coarse: int) -> float:
        solver = {"name": "ksvd", "updates": 40, "replace": 0.1, "trim": 4, "coarse": coarse}
        model = SemiNMF(k, solver, target_l0=4, nonnegative="codes")
        model.fit(Z.clamp(min=0) @ truth, max_iter=40)
        return float(match_atoms(truth, model.get_dictionary()).cosine.mean())

    plain, coarse = found(0), found(general_ones)
    assert coarse > plain + 0.08, (plain, coarse)
    with pytest.raises(ValueError, match=r"solver\.coarse=8 must be less than nb_concepts=8"):
        SemiNMF(8, {"name": "ksvd", "coarse": 8}, l1_penalty=0.1).fit(planted("codes")[0])
