"""Several processes learn the dictionary of one, whether they exchange rows or sums, or share sums out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_problems import solver_problem
from threads import Threads, in_processes
from torch import Tensor

from seminmf_lightning.core.constraints import CONSTRAINTS
from seminmf_lightning.core.processes import GROUP, AtomShares, Processes
from seminmf_lightning.learners import Learner, Recipe, make_learner, online
from seminmf_lightning.solvers.hals import HALS
from seminmf_lightning.training.joined_sums import form, joined

K = 2 * GROUP + 9
SHARED: dict[str, Any] = {"nb_concepts": K, "solver": {"name": "hals", "shard": "atoms", "sweeps": 2}}


@given(concepts=st.integers(1, 1000), count=st.integers(1, 9))
def test_every_atom_has_one_process(concepts: int, count: int) -> None:
    several = Processes()
    several.count = count
    shares = AtomShares.of(concepts, several)
    held = [atom for atoms in shares.slices for atom in range(atoms.start, atoms.stop)]
    assert held == list(range(concepts)) and len(shares.slices) == count
    assert all(atoms.start % GROUP == 0 or atoms.start == concepts for atoms in shares.slices)
    largest = max(atoms.stop - atoms.start for atoms in shares.slices)
    assert largest <= GROUP * -(-concepts // (GROUP * count))
    assert shares.idle == max(0, count - -(-concepts // GROUP))
    assert AtomShares.of(concepts, several, whole=True).own == slice(0, concepts)


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("bounded", [False, True])
def test_a_step_of_many_is_that_of_one(count: int, bounded: bool) -> None:
    D, S, P = solver_problem(0, K, 7, torch.float64)
    solver, signs = HALS(sweeps=2), CONSTRAINTS["dictionary"]

    def step(processes: Threads) -> Tensor:
        shares = AtomShares.of(K, processes)
        own = shares.own
        return solver.step(D, S[own], P[own], constraint=signs, bounded=bounded, shares=shares)

    one = solver.step(D, S, P, constraint=signs, bounded=bounded)
    assert not torch.equal(one, D)
    for stepped in in_processes(count, step):
        assert torch.allclose(stepped, one, rtol=1e-12, atol=1e-14)


def learned(
    A: Tensor, processes: Processes, recipe: dict[str, Any], state: Any = None
) -> tuple[Learner, Tensor]:
    """Train on a share of each update; with a ``state`` (D and what a checkpoint has), from there on."""
    learner = make_learner(Recipe(**recipe), A.shape[1], processes)
    D = learner.initialise(A)
    if state is not None:
        D = state[0].clone()
        learner.load_state_dict(state[1])
    for rows in A.split(100):
        learner.observe(rows.tensor_split(processes.count)[processes.rank], D)
        for x in learner.pending.tensors().values():
            processes.add_(x)
        learner.absorb()
        D = learner.improve(D)
    return learner, D


@pytest.mark.parametrize(("concepts", "sums"), [(8, True), (K, False)])
def test_processes_exchange_rows_or_sums_whichever_are_fewer(
    signed: Tensor, concepts: int, sums: bool
) -> None:
    recipe = {"nb_concepts": concepts, "l1_penalty": 0.1}
    D = learned(signed, Processes(), recipe)[1]

    def two(processes: Threads) -> Tensor:
        sent: list[int] = []
        gather = processes.gather
        processes.gather = lambda *tensors: sent.append(len(tensors[0])) or gather(*tensors)
        first = learned(signed, processes, recipe)[1]
        assert bool(sent) is not sums
        return first

    first, second = in_processes(2, two)
    assert torch.equal(first, second) and (first - D).abs().max() < 1e-6


@pytest.mark.parametrize("problem", [{"l1_penalty": 0.1}, {"l1_penalty": 0.0, "statistics": "codes"}])
def test_learning_resuming_and_replacing_shared_is_that_of_one(
    signed: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: dict[str, Any]
) -> None:
    monkeypatch.setattr(online, "DEAD_ROWS", 100)  # some atoms are replaced
    recipe = SHARED | problem
    one, D = learned(signed, Processes(), recipe)
    again = learned(signed, Processes(), recipe, (D, one.state_dict()))[1]
    assert one.replaced or not one.recipe.penalised

    def two(processes: Threads) -> tuple[Tensor, dict[str, Any], Tensor]:
        learner, first = learned(signed, processes, recipe)
        own = learner.shares.own
        assert learner.total.gram.shape == (own.stop - own.start, K) and len(learner.total.gram) < K
        learner.pending.zero_()
        state = learner.whole_state(learner.state_dict(), lambda x, shares: joined(x, shares, tmp_path))
        expected = learner.whole_state(learner.state_dict(), form)
        if processes.rank == 0:
            assert {n: x.shape for n, x in state["total"].items()} == {
                n: x.shape for n, x in expected["total"].items()
            }
        return first, state, learned(signed, processes, recipe, (D, one.state_dict()))[1]

    results = in_processes(2, two)
    for first, _, resumed in results:
        assert torch.equal(first, results[0][0]) and torch.equal(resumed, results[0][2])
        assert (first - D).abs().max() < 1e-6 and (resumed - again).abs().max() < 1e-6
    state = results[0][1]
    for name, x in one.total.tensors().items():
        assert torch.allclose(state["total"][name], x, rtol=1e-9, atol=1e-9), name
    assert (learned(signed, Processes(), recipe, (D, state))[1] - again).abs().max() < 1e-6
    assert not list(tmp_path.iterdir())  # the file has no name


def test_what_cannot_be_shared_out_is_refused_by_name(signed: Tensor) -> None:
    with pytest.raises(ValueError, match=r"solver\.shard must be one of atoms; got 'rows'"):
        HALS(shard="rows")
    with pytest.raises(ValueError, match=r"solver\.shard=atoms shares out sums .*second_moment has none"):
        make_learner(Recipe(nb_concepts=4, solver={"name": "hals", "shard": "atoms"}), 24)
    few = Recipe(nb_concepts=4, l1_penalty=0.1, solver={"name": "hals", "shard": "atoms"})

    def idle(processes: Threads) -> None:
        if processes.rank == 0:
            with pytest.warns(UserWarning, match=r"4 atoms in groups of 64: 1 of 2 processes hold none"):
                make_learner(few, 24, processes)

    in_processes(2, idle)
