"""Run directories in any state are found and read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from run_folders import write_sweep

from seminmf_lightning.explain.runs import find_runs, read_run


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "sweep")


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
