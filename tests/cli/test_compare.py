"""The table, files and plot of the compare command."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from run_folders import METRICS, write_run, write_sweep

from seminmf_lightning.explain.runs import find_runs, read_run
from seminmf_lightning.explain.sweeps import varying


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "sweep")


def test_it_shows_broken_runs_and_needs_no_plotly(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from seminmf_lightning.cli import compare

    monkeypatch.setattr(compare, "find_spec", lambda name: None)
    compare.main([str(sweep), "--max-l0", "5"])
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
    with pytest.raises(FileNotFoundError, match="nowhere"):
        compare.main(["nowhere"])


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
    console = Console(width=width)
    table, hidden = compare.table_of(records, names, console)
    console.print(table)
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    head, *lines = [line.split() for line in shown.splitlines() if line.strip(" ─")]
    assert {"run", "r2", "l0", "status"} <= set(head)
    assert set(head) | set(hidden) == {
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
    lines = compare.remarks(records, hidden)
    assert all(any(run.reason in line for line in lines) for run in runs)
    assert any(", ".join(hidden) in line for line in lines)


def test_names_are_shown_as_they_are_in_the_plot(tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="the extra report is not installed")
    from seminmf_lightning.cli import compare

    nasty = '<b onclick=x>&"'
    for number in range(2):
        write_run(
            tmp_path / f"{number}<i>", "x=1", metrics=json.dumps(METRICS), data={"path": f"{nasty}{number}"}
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
    pytest.importorskip("plotly", reason="the extra report is not installed")
    sweep = tmp_path / "sweep"
    swept = script(
        "train", "-m", "l1_penalty=0.05,0.2", "nb_concepts=8,700", "seed=0,1", "solver=pgd", "data=npy",
        f"data.path={npy}", "trainer.max_epochs=2", "logger=none", f"hydra.sweep.dir={sweep}", check=False,
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
            assert 0 <= float(row["matched_share"]) <= 1
            above_null = float(row["matched_cosine"]) - float(row["null_cosine"])
            assert float(row["stability"]) == pytest.approx(above_null)
            assert row["seeds"] == "2"
            metrics = json.loads((Path(row["path"]) / "metrics.json").read_text())
            assert float(row["r2"]) == metrics["r2"]
    assert any(row["frontier"] == "True" for row in rows)
    page = (tmp_path / "report" / "compare.html").read_text()
    assert not re.search(r"<script[^>]*\ssrc=", page)  # plotly.js is inside
    assert "nb_concepts=8" in page
    assert "nb_concepts=700" not in page
