"""Sweeps: what is read of run directories in any state, the frontier, stability, the script, and the
search."""

from __future__ import annotations

import csv
import json
import re
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml
from commands import ROOT
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.dictionary_file import save_dictionary
from seminmf_lightning.explain.runs import Run, find_runs, read_run
from seminmf_lightning.explain.sweeps import best, frontier, stability, varying

FIGURES = {
    "reconstruction_loss": 0.1,
    "r2": 0.8,
    "l0": 12.0,
    "dead_fraction": 0.0,
    "optimality_gap": None,
    "seconds": 3.0,
}


def write_run(
    path: Path, *overrides: str, metrics: str | None = None, D: torch.Tensor | None = None, **config: object
) -> Path:
    (path / ".hydra").mkdir(parents=True)
    (path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    if config:
        (path / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    if metrics is not None:
        (path / "metrics.json").write_text(metrics)
    if D is not None:
        save_dictionary(path / "dictionary.safetensors", D, Normalizer(1.0), {}, ())
    return path


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Ten run directories, one of each kind that is met, the finished ones first."""
    sweep = tmp_path / "sweep"
    for number, penalty in enumerate(("0.1", "0.2")):
        write_run(sweep / str(number), f"l1_penalty={penalty}", "data=npy", metrics=json.dumps(FIGURES))
    write_run(sweep / "2", "l1_penalty=0.3", "data=npy")
    (sweep / "2" / "error.txt").write_text("InstantiationException: Error in call\nValueError('no rows')\n")
    write_run(sweep / "3", "l1_penalty=0.4", "data=npy")
    (sweep / "3" / "checkpoints").mkdir()
    (sweep / "3" / "checkpoints" / "last.ckpt").touch()
    write_run(sweep / "4", "l1_penalty=0.5", "data=npy")
    write_run(sweep / "5", "l1_penalty=0.6", "data=npy", metrics='{"r2": 0.')
    write_run(sweep / "6", "l1_penalty=0.7", "data=npy", metrics=json.dumps(FIGURES | {"r2": float("nan")}))
    write_run(sweep / "7", "l1_penalty=0.8", "data=npy", metrics='{"r2": 0.5, "reconstruction_loss": "low"}')
    write_run(sweep / "8", "l1_penalty=0.9", "data=npy", metrics="[1]")
    (write_run(sweep / "10", metrics=json.dumps(FIGURES)) / ".hydra" / "overrides.yaml").write_text("- {")
    return sweep


@pytest.mark.parametrize(
    ("number", "status", "words"),
    [
        (0, "finished", ""),
        (2, "failed", "no rows"),
        (3, "unfinished", "resumed from checkpoints/last.ckpt"),
        (4, "unfinished", "no checkpoint"),
        (5, "failed", "metrics.json: not JSON .*(Unterminated|Expecting)"),
        (6, "failed", "r2 is nan"),
        (7, "failed", "l0 is missing, reconstruction_loss is low"),
        (8, "failed", "expected an object, found list"),
        (10, "failed", r"\.hydra"),
    ],
)
def test_runs_in_any_state_are_read(sweep: Path, number: int, status: str, words: str) -> None:
    run = read_run(sweep / str(number))
    assert run.status == status
    assert re.search(words, run.reason)
    assert bool(run.reason) == (status != "finished")
    assert "\n" not in run.reason


def test_runs_are_found_in_directories_and_globs(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = [*range(9), 10]
    for places in ([sweep], [sweep.parent], [sweep / "*"], [sweep / "1*", sweep, sweep / "10"]):
        assert [int(path.name) for path in find_runs(places)] == numbers
    monkeypatch.chdir(sweep)
    assert find_runs(["3"]) == [sweep / "3"]
    with pytest.raises(FileNotFoundError, match="nowhere: no such directory"):
        find_runs([sweep, "nowhere"])
    (sweep.parent / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: no run in it"):
        find_runs([sweep.parent / "empty"])


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


def finished(number: int, l0: float, r2: float) -> Run:
    return Run(Path(str(number)), "finished", metrics={"l0": l0, "r2": r2})


points = st.tuples(
    st.sampled_from([0.0, 1.0, 2.5, 4.0]) | st.floats(0, 64),
    st.sampled_from([-1.0, 0.0, 0.5]) | st.floats(-2, 1),
)


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


def seeds(folder: Path, *dictionaries: torch.Tensor, **config: object) -> list[Run]:
    return [
        read_run(
            write_run(
                folder / str(seed), f"seed={seed}", metrics=json.dumps(FIGURES), D=D, seed=seed, **config
            )
        )
        for seed, D in enumerate(dictionaries)
    ]


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


def test_the_script_shows_broken_runs_and_needs_no_plotly(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from seminmf_lightning.cli import compare

    monkeypatch.setattr("sys.argv", ["compare.py", str(sweep), "--max-l0", "5"])
    monkeypatch.setattr(compare, "find_spec", lambda name: None)
    compare.main()
    shown = capsys.readouterr().out
    for words in (
        "no rows",
        "resumed from",
        "no checkpoint",
        "r2 is nan",
        "no finished run with l0 <= 5",
        "fewest",
        "[report]",
    ):
        assert words in shown
    records = json.loads((sweep / "compare.json").read_text())
    assert len(records) == 10
    assert records[6]["r2"] is None
    assert not (sweep / "compare.html").exists()
    monkeypatch.setattr("sys.argv", ["compare.py", "nowhere"])
    with pytest.raises(SystemExit):
        compare.main()


@pytest.mark.parametrize("keys", [1, 4])
@pytest.mark.parametrize("width", [50, 60, 72, 100, 200])
def test_the_table_is_readable_at_any_width(
    sweep: Path, width: int, keys: int, capsys: pytest.CaptureFixture[str]
) -> None:
    from seminmf_lightning.cli import compare

    runs = [read_run(path) for path in find_runs([sweep])]
    records, names = compare.describe(runs, sweep), varying(runs)
    for number in range(keys - 1):
        names.append(f"some.other_setting{number}")
        for record in records:
            record["settings"][names[-1]] = 10**number
    columns, gone = compare.columns_of(records, names, width)
    Console(width=width).print(compare.as_table(records, columns))
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    head, *lines = [line.split() for line in shown.splitlines() if line.strip(" ─")]
    assert {"run", "r2", "l0", "status"} <= set(head)
    assert set(head) | set(gone) == {
        "run",
        *names,
        "r2",
        "l0",
        "loss",
        "dead",
        "seconds",
        "status",
    }  # no run has a gap
    assert [line[-1] for line in lines] == [run.status for run in runs]
    told = compare.remarks(records, columns, gone)
    assert all(any(run.reason in line for line in told) for run in runs)
    assert any(", ".join(gone) in line for line in told)


def test_names_are_shown_as_they_are_in_the_plot(tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="pip install -e '.[report]'")
    from seminmf_lightning.cli import compare

    nasty = '<b onclick=x>&"'
    for number in range(2):
        write_run(
            tmp_path / f"{number}<i>", "x=1", metrics=json.dumps(FIGURES), data={"path": f"{nasty}{number}"}
        )
        (tmp_path / f"{number}<i>" / ".hydra" / "overrides.yaml").write_text(
            yaml.safe_dump([f"data.path={nasty}{number}"])
        )
    compare.plot(
        tmp_path / "compare.html",
        compare.describe([read_run(path) for path in find_runs([tmp_path])], tmp_path),
    )
    page = (tmp_path / "compare.html").read_text()
    assert "<i>" not in page.split("plotly-graph-div")[-1] and nasty not in page
    assert 'name="viewport"' in page and "<title>r2 against l0</title>" in page


@pytest.mark.slow
def test_a_sweep_is_compared(script, npy: Path, tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="pip install -e '.[report]'")
    sweep = tmp_path / "sweep"
    swept = script(
        "train", "-m", "l1_penalty=0.05,0.2", "nb_concepts=8,700", "seed=0,1", "solver=pgd", "data=npy", f"data.path={npy}",
        "trainer.max_epochs=2", "logger=none", f"hydra.sweep.dir={sweep}", check=False,
    )  # fmt: skip
    assert swept.returncode != 0  # 600 rows are too few for 700 concepts
    shown = script("compare", sweep, "--max-l0", "64", "--output", tmp_path / "report").stdout
    assert "nb_concepts=700 is more than" in shown
    assert "best r2 with l0 <= 64" in shown
    with (tmp_path / "report" / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == [str(number) for number in range(8)]
    assert list(rows[0])[1:4] == ["l1_penalty", "nb_concepts", "seed"]
    for row in rows:
        assert row["status"] == ("finished" if row["nb_concepts"] == "8" else "failed")
        assert bool(row["stability"]) == (row["nb_concepts"] == "8")
        if row["stability"]:
            assert 0 <= float(row["stability"]) <= 1
            assert row["seeds"] == "2"
            figures = json.loads((Path(row["path"]) / "metrics.json").read_text())
            assert float(row["r2"]) == figures["r2"]
    assert any(row["frontier"] == "True" for row in rows)
    page = (tmp_path / "report" / "compare.html").read_text()
    assert not re.search(r"<script[^>]*\ssrc=", page)  # plotly.js is inside
    assert "nb_concepts=8" in page
    assert "nb_concepts=700" not in page


@pytest.mark.slow
def test_search_finds_a_frontier(script, npy: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="pip install -e '.[search]'")
    search = tmp_path / "search"
    script(
        "train", "-m", "hparams_search=optuna", "hydra.sweeper.n_trials=3", "nb_concepts=tag(log,int(interval(4,16)))",
        "data=npy", f"data.path={npy}", "trainer.max_epochs=2", "logger=none", f"hydra.sweep.dir={search}",
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


def test_an_unknown_optimized_metric_is_refused_before_training(npy: Path, tmp_path: Path) -> None:
    from seminmf_lightning.cli import train

    overrides = ["data=npy", f"data.path={npy}", "optimized_metric=[r2,loss]", f"run_dir={tmp_path}/run"]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("train", overrides=overrides)
    with pytest.raises(
        ValueError, match=r"optimized_metric must be one of reconstruction_loss, .* got 'loss'"
    ):
        train.train(cfg)


def test_a_failure_is_kept_until_the_run_is_resumed(tmp_path: Path) -> None:
    from seminmf_lightning.cli import run_directory

    error = tmp_path / "run" / "error.txt"
    with pytest.raises(ValueError, match="no rows"), run_directory.failure_kept(error):
        raise ValueError("no rows")
    assert error.read_text() == "ValueError: no rows\n"
    with run_directory.failure_kept(error):
        assert not error.exists()
    assert not error.exists()


@pytest.mark.parametrize(
    ("outcome", "changed", "left"),
    [
        (None, True, {"dictionary.safetensors", "metrics.json", ".hydra"}),
        (ValueError, False, {"dictionary.safetensors", "metrics.json", ".hydra"}),
        (ValueError, True, {"dictionary.safetensors", ".hydra", "metrics.json.previous", ".hydra.previous"}),
        (SystemExit, False, {"dictionary.safetensors", ".hydra", "metrics.json.previous", ".hydra.previous"}),
    ],
)
def test_a_finished_run_that_goes_on(
    tmp_path: Path, outcome: type[BaseException] | None, changed: bool, left: set[str]
) -> None:
    """It stays as it was where the attempt fails at once; else what it said is put aside until there is
    news."""
    from seminmf_lightning.cli.run_directory import finished_run_kept

    run = write_run(tmp_path / "run", "seed=1", metrics='{"old": 1}', D=torch.eye(2))
    with suppress(ValueError, SystemExit), finished_run_kept(run):
        assert not (run / "metrics.json").exists()
        write_run(run, "seed=2")
        if changed:
            save_dictionary(run / "dictionary.safetensors", torch.eye(2), Normalizer(2.0), {}, ())
        if outcome is not None:
            raise outcome
        (run / "metrics.json").write_text('{"new": 1}')
    assert {path.name for path in run.iterdir()} == left
    unchanged = outcome is ValueError and not changed
    assert ("seed=1" in (run / ".hydra" / "overrides.yaml").read_text()) == unchanged
    if "metrics.json" in left:
        assert ("old" in (run / "metrics.json").read_text()) == unchanged
    with finished_run_kept(run):  # it goes on to its end
        pass
    assert not list(run.glob("*.previous"))
