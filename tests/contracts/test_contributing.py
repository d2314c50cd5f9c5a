"""The solver and the encoder of CONTRIBUTING.md pass the contract suites in a copy of the tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT

HEADING = re.compile(r"`(seminmf_lightning/\w+/(\w+)\.py)`, with `(configs/[\w/]+\.yaml)`:\n")
BLOCK = re.compile(r"```(?:python|yaml)\n(.*?)```", re.DOTALL)


@pytest.mark.slow
def test_new_algorithms_are_found_and_pass_the_contract_suites(tmp_path: Path) -> None:
    for folder in ("seminmf_lightning", "configs", "tests/contracts", "tests/helpers"):
        ignore = shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    for file in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / file, tmp_path / file)
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = []
    for heading in HEADING.finditer(page):
        blocks = BLOCK.finditer(page, heading.end())
        for file in (heading[1], heading[3]):
            assert not (ROOT / file).exists()
            (tmp_path / file).write_text(next(blocks)[1])
        names.append(heading[2])
    assert len(names) == 2
    suites = [f"tests/contracts/test_{kind}.py" for kind in ("solvers", "encoders")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", *suites, "-k", " or ".join(names)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for name, least in zip(names, (5, 10), strict=True):
        assert len(re.findall(rf"PASSED .*{name}", done.stdout)) >= least, done.stdout[-3000:]
