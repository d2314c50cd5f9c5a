"""Settings that vary, the frontier, stability over seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from run_folders import METRICS, write_run

from seminmf_lightning.explain.runs import Run, find_runs, read_run
from seminmf_lightning.explain.sweeps import best, frontier, stability, varying

points = st.tuples(
    st.sampled_from([0.0, 1.0, 2.5, 4.0]) | st.floats(0, 64),
    st.sampled_from([-1.0, 0.0, 0.5]) | st.floats(-2, 1),
)


def finished(number: int, l0: float, r2: float) -> Run:
    return Run(Path(str(number)), "finished", metrics={"l0": l0, "r2": r2})


def seeds(folder: Path, *dictionaries: torch.Tensor, **config: object) -> list[Run]:
    return [
        read_run(
            write_run(
                folder / str(seed), f"seed={seed}", metrics=json.dumps(METRICS), D=D, seed=seed, **config
            )
        )
        for seed, D in enumerate(dictionaries)
    ]


def test_keys_that_vary_take_their_defaults_from_the_config(tmp_path: Path) -> None:
    write_run(
        tmp_path / "0",
        "l1_penalty=0.10",
        "solver=pgd",
        l1_penalty=0.1,
        seed=0,
        run_dir="a",
        solver={"steps": 1},
    )
    write_run(
        tmp_path / "1",
        "seed=3",
        "+data.limit=5",
        "solver=pgd",
        l1_penalty=0.1,
        seed=3,
        data={"limit": 5},
        run_dir="b",
    )
    write_run(tmp_path / "2", "~callbacks.progress", "run_dir=c", "solver=hals", l1_penalty=0.1, seed=0)
    runs = [read_run(tmp_path / str(number)) for number in range(3)]
    assert varying(runs) == ["solver", "seed", "data.limit", "callbacks.progress"]
    assert [run.settings.get("seed") for run in runs] == [0, 3, 0]
    assert varying(runs[:1]) == []
    assert varying([runs[0], Run(tmp_path, "failed", ".hydra: torn")]) == []  # of which no setting is known


@given(st.lists(points, max_size=12), st.floats(0, 64))
def test_frontier_and_best_are_the_naive_ones(drawn: list[tuple[float, float]], max_l0: float) -> None:
    runs = [finished(number, *point) for number, point in enumerate(drawn)]
    unbeaten = [
        run
        for run in runs
        if not any(
            other.l0 <= run.l0 and other.r2 >= run.r2 and (other.l0 < run.l0 or other.r2 > run.r2)
            for other in runs
        )
    ]
    found = frontier([*runs, Run(Path("failed"), "failed")])
    assert {run.path for run in found} == {run.path for run in unbeaten}
    assert [run.l0 for run in found] == sorted(run.l0 for run in unbeaten)
    chosen = best(runs, max_l0)
    allowed = [run.r2 for run in runs if run.l0 <= max_l0]
    assert (chosen is None) == (not allowed)
    if chosen is not None:
        assert chosen.l0 <= max_l0
        assert chosen.r2 == max(allowed)


def test_stability_of_identical_permuted_and_disjoint_dictionaries(tmp_path: Path) -> None:
    D, I = torch.rand(8, 20, generator=torch.Generator().manual_seed(0)), torch.eye(8, 20)  # noqa: E741
    half = torch.cat([I[:4], I[4:].roll(8, dims=1)])
    for number, (dictionaries, share) in enumerate([
        ((D, D), 1),
        ((D, D[[3, 1, 2, 0, 7, 6, 5, 4]] * 5), 1),
        ((I, I.roll(8, dims=1)), 0),
        ((I, half), 0.5),
        ((I, I, half), 2 / 3),  # pairs: 1, 1/2, 1/2
        ((I, I[:6]), 1),  # the share is one of the smaller dictionary's atoms
        ((torch.zeros(4, 20), torch.zeros(4, 20)), 0),
        ((I, torch.cat([I[:7], torch.zeros(1, 20)])), 7 / 8),
    ]):  # fmt: skip
        runs = seeds(tmp_path / str(number), *dictionaries)
        found = stability(runs)
        assert set(found) == {run.path for run in runs}
        assert {item.seeds for item in found.values()} == {len(dictionaries)}
        assert found[runs[0].path].share == pytest.approx(share)


@pytest.mark.parametrize(("signs", "share"), [("codes", 0), ("none", 1)])
def test_an_atom_and_its_negative_are_one_concept_where_no_sign_is_fixed(
    tmp_path: Path, signs: str, share: float
) -> None:
    I = torch.eye(4, 6)  # noqa: E741
    runs = seeds(tmp_path, I, -I, nonnegative=signs, solver="hals")
    found = stability(runs)[runs[0].path]
    assert found.share == share
    assert (found.above_null > 0.2) == bool(share)


def test_stability_is_of_runs_that_differ_in_nothing_else(tmp_path: Path) -> None:
    I = torch.eye(4, 6)  # noqa: E741
    sparse, loose = (
        seeds(tmp_path / "a", I, I, l1_penalty=0.2),
        seeds(tmp_path / "b", I.roll(1, dims=0), l1_penalty=0.1),
    )
    again = seeds(tmp_path / "c", I.roll(1, dims=0), l1_penalty=0.1)  # the same seed twice says nothing
    assert set(stability([*sparse, *loose, *again])) == {run.path for run in sparse}
    (sparse[0].path / "dictionary.safetensors").write_bytes(b"torn")
    with pytest.warns(UserWarning, match="not a whole .safetensors file"):
        assert stability(sparse) == {}


@pytest.mark.slow
def test_search_finds_a_frontier(script, npy: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="pip install -e '.[search]'")
    search = tmp_path / "search"
    script(
        "train", "-m", "hparams_search=optuna", "hydra.sweeper.n_trials=3", "data=npy", f"data.path={npy}",
        "nb_concepts=tag(log,int(interval(4,16)))", "trainer.max_epochs=2", "logger=none",
        f"hydra.sweep.dir={search}",
    )  # fmt: skip
    runs = [read_run(path) for path in find_runs([search])]
    assert [run.status for run in runs] == ["finished"] * 3
    assert varying(runs) == ["l1_penalty", "nb_concepts"]
    assert all(
        4 <= run.settings["nb_concepts"] <= 16 and 0.01 <= run.settings["l1_penalty"] <= 0.3 for run in runs
    )
    solutions = yaml.safe_load((search / "optimization_results.yaml").read_text())["solutions"]
    measured = [[run.metrics["reconstruction_loss"], run.l0] for run in runs]
    assert solutions
    assert all(solution["values"] in measured for solution in solutions)
