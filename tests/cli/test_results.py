"""Commands in sequence: they use the run's own data, replace their results, and name the next."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from seminmf_lightning.cli.run_directory import make_room, no_trace, refuse_unwritable, shown_path

QUIET = ("trainer.enable_progress_bar=false",)
SMALL = (*QUIET, "trainer.max_epochs=1", "logger=none", "trainer=cpu")


@pytest.fixture
def run(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on rows of 7 features, in the present folder."""
    monkeypatch.chdir(tmp_path)
    np.save("mine.npy", torch.randn(70, 7, generator=torch.Generator().manual_seed(0)).numpy())
    command("train", "data=npy", "data.path=mine.npy", "nb_concepts=3", "hydra.run.dir=my run", *SMALL)
    return Path("my run")


def next_command(shown: str) -> list[str]:
    """Words of the last line on the screen, which is a command."""
    line = shown.rstrip("\n").splitlines()[-1]
    words = shlex.split(line.removeprefix("next").strip())
    assert words[0] == "seminmf", line
    return words[1:]


def test_each_command_uses_the_data_of_the_run_and_names_the_next(
    command, capsys: pytest.CaptureFixture[str], run: Path
) -> None:
    assert next_command(capsys.readouterr().out) == ["report", "run=my run"]
    for name, following in (("report", "evaluate"), ("evaluate", "report"), ("encode", "evaluate")):
        command(name, "run='my run'", *(QUIET if name != "report" else ()))
        shown = capsys.readouterr().out
        assert f"data=npy data.path={Path('mine.npy').resolve()}, the run's own" in shown
        assert next_command(shown) == [following, "run=my run"]
    assert np.load(run / "codes.npy").shape == (70, 3)


def test_a_run_finds_its_own_rows_from_another_folder(
    command, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    np.save("mine.npy", np.zeros((5, 7), dtype=np.float32))  # another file of that name and width
    command("encode", "run='../my run'", *QUIET)
    assert np.load(tmp_path / run / "codes.npy").shape == (70, 3)


def test_results_are_made_again_and_the_old_ones_kept(command, run: Path) -> None:
    command("encode", "run='my run'", *QUIET)
    before = (run / "codes.npy").read_bytes()
    np.save("other.npy", torch.randn(50, 7).numpy())
    command("encode", "run='my run'", "data=npy", "data.path=other.npy", *QUIET)
    assert len(np.load(run / "codes.npy")) == 50
    assert (run / "codes.npy.previous").read_bytes() == before
    command("evaluate", "run='my run'", *QUIET)
    command("evaluate", "run='my run'", "against='my run'", *QUIET)
    assert json.loads((run / "evaluation.json").read_text())["matched_share"] == 1
    assert "matched_share" not in json.loads((run / "evaluation.json.previous").read_text())


def test_files_that_may_belong_to_another_run_are_refused(
    command, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("kept.npy").write_bytes(b"somebody's")
    with pytest.raises(SystemExit):
        command("encode", "run='my run'", "output=kept.npy", *QUIET)
    assert "may belong to another run" in capsys.readouterr().err
    assert Path("kept.npy").read_bytes() == b"somebody's"
    command("encode", "run='my run'", "output=kept.npy", "overwrite=true", *QUIET)
    assert Path("kept.npy.previous").read_bytes() == b"somebody's"


def test_the_previous_result_is_kept_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError("no hard links")

    monkeypatch.setattr(os, "link", no_links)
    (tmp_path / "page.html").write_text("old")
    make_room(tmp_path / "page.html", tmp_path, overwrite=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "page.html.previous"]


def test_a_sweep_ends_in_its_comparison(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = ("data=synthetic", "data.rows=200", "data.features=6")
    command("train", "-m", *rows, "nb_concepts=2,3", "hydra.sweep.dir=sweep", *SMALL)
    words = next_command(capsys.readouterr().out)
    assert words == ["compare", "sweep"]
    command(*words)
    assert (tmp_path / "sweep" / "compare.csv").is_file()


def test_the_tuned_penalty_is_a_metric(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = ("data=synthetic", "data.rows=300", "data.features=6", "nb_concepts=4")
    command("train", *rows, "target_l0=2", "solver=pgd", "hydra.run.dir=run", *SMALL)
    assert json.loads(Path("run/metrics.json").read_text())["l1_penalty"] > 0
    assert "penalty tuned to target_l0" in capsys.readouterr().out


def test_refused_settings_leave_no_trace_and_failures_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_dir = tmp_path / "outputs" / "day" / "time"
    run_dir.mkdir(parents=True)
    (run_dir / "train.log").touch()
    with pytest.raises(ValueError, match="bad"), no_trace(run_dir):
        raise ValueError("bad setting")
    assert not list(tmp_path.iterdir())
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="bad"), no_trace(tmp_path / "kept"):
        raise ValueError("bad setting")
    assert (tmp_path / "kept" / "notes.txt").exists()


def test_a_folder_that_cannot_be_written_is_named(
    command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PermissionError, match=r"cannot write to /proc .*output=\.\.\."):
        refuse_unwritable(Path("/proc/new"), "output")
    monkeypatch.chdir("/proc")
    monkeypatch.setenv("SEMINMF_RUN_ID", "day/time")
    with pytest.raises(SystemExit):
        command("train", "data=synthetic", *SMALL)
    assert "cannot write to /proc" in capsys.readouterr().err


def test_paths_are_shown_as_they_are_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_path(tmp_path / "runs" / "1") == "runs/1"
    assert shown_path("/elsewhere/a b") == "'/elsewhere/a b'"
