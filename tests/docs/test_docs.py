"""The documentation builds without a warning, its links lead somewhere, its notebook and snippets run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from commands import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BEFORE_README = "import torch\ntorch.manual_seed(0)\nA, A_new = torch.randn(500, 128), torch.randn(20, 128)\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text) + re.findall(r'src="([^":]+)"', text):
        assert (page.parent / target).exists(), f"{page.name} points to {target}"


def test_the_first_screen_of_the_readme_shows_a_picture_and_code() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    first = "\n".join(lines[:24])
    assert "<img" in first
    assert "```python" in first


@pytest.mark.parametrize("page", ["README.md", "docs/train.md"])
def test_the_snippets_of_a_page_run(page: str, tmp_path: Path) -> None:
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert snippets
    for snippet in snippets:
        program = BEFORE_README * (page == "README.md") + snippet
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{snippet}\n{done.stderr[-2000:]}"


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="pip install -e '.[docs]'")
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "SemiNMFModule" in (tmp_path / "site" / "api" / "index.html").read_text()
    assert "class" in (tmp_path / "site" / "extend" / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("nbclient") is None, reason="pip install -e '.[docs]'")
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output.output_type == "error" for output in outputs)
