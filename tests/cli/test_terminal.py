"""Commands in a terminal of 80 and of 100 columns: no traceback, no torn table, a last line that works."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

import pytest
from terminal import painted_lines, run_in_terminal

SEMINMF = [sys.executable, "-m", "seminmf_lightning.cli.main"]
SMALL = ["data=synthetic", "data.rows=400", "data.features=8", "nb_concepts=4", "trainer=cpu", "logger=none"]
MISTAKES = [
    ["train", "solver=pdg"],
    ["train", "+l1_penality=0.1"],
    ["train", "nb_concepts=many"],
    ["train", "l1_penalty=-1"],
    ["train", "data=npy"],
    ["train", "data=npy", "data.path=nowhere/*.npy"],
    ["train", "normalize=scal"],
    ["train", "l1_penalty", "0.1"],
    ["encode", "run=nowhere"],
    ["compare", "nowhere"],
]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", MISTAKES)
def test_user_errors_are_a_message(arguments: list[str], tmp_path: Path) -> None:
    status, output = run_in_terminal([*SEMINMF, *arguments], 80, tmp_path)
    lines = [line for line in painted_lines(output) if not line.endswith("starting")]
    assert status == 1
    assert "Traceback" not in output
    assert any(line.startswith("error: ") for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 100])
def test_a_run_fits_the_terminal_and_its_hints_work(columns: int, tmp_path: Path) -> None:
    words = ["train", *SMALL, "l1_penalty=0.1", "hydra.run.dir=my run"]
    for _ in range(3):  # train, report, evaluate: each names the next
        status, output = run_in_terminal([*SEMINMF, *words], columns, tmp_path)
        lines = painted_lines(output)
        assert status == 0, output
        assert "Traceback" not in output
        tables = [line for line in lines if line[0] in "┏┃┡│└"]
        assert all(len(line.rstrip()) <= columns for line in tables)
        assert "starting" in lines[0]
        program, *words = shlex.split(lines[-1].removeprefix("next").strip())
        assert program == "seminmf"


@pytest.mark.slow
def test_something_is_on_the_screen_before_the_heavy_imports(tmp_path: Path) -> None:
    probe = (
        "import sys; sys.argv = ['seminmf', 'train']; sys.stderr.isatty = lambda: True\n"
        "import seminmf_lightning.cli.main as main\n"
        "main.import_module = lambda name: sys.exit('torch' in sys.modules or 'hydra' in sys.modules)\n"
        "main.main()"
    )
    began = time.monotonic()
    status, output = run_in_terminal([sys.executable, "-c", probe], 80, tmp_path)
    assert status == 0
    assert "train: starting" in output
    assert time.monotonic() - began < 10  # a machine that does other things; alone it takes 0.2 s
