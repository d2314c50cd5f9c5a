"""The wheel: it holds every module, config and data file, and its commands run without the clone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from commands import ROOT, TWO

tomllib = pytest.importorskip("tomllib", reason="Python 3.11")


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_list_of_packages_equals_the_tree() -> None:
    folders = {file.parent for file in (ROOT / "seminmf_lightning").rglob("*.py")}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    names |= {
        ".".join(["seminmf_lightning", *file.parent.relative_to(ROOT).parts])
        for file in (ROOT / "configs").rglob("__init__.py")
    }
    assert set(project()["tool"]["setuptools"]["packages"]) == names


def test_the_citation_is_of_this_version() -> None:
    assert f"version: {project()['project']['version']}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_oldest_versions_of_the_ci_are_the_lower_bounds() -> None:
    requirement = re.compile(r"([a-z-]+)>=([0-9.]+)")
    bounds = dict(requirement.match(text).groups() for text in project()["project"]["dependencies"])  # type: ignore[union-attr]
    lines = (ROOT / ".ci" / "oldest.txt").read_text().splitlines()[1:]
    oldest = dict(line.split("==") for line in lines)
    assert bounds.keys() == oldest.keys()
    for name, bound in bounds.items():
        assert f"{bound}.0.0".startswith(oldest[name]), name


def test_every_extra_that_is_named_exists() -> None:
    extras = project()["project"]["optional-dependencies"]
    for file in [*(ROOT / "seminmf_lightning").rglob("*.py"), *(ROOT / "configs").rglob("*.yaml")]:
        for part in file.read_text().split("seminmf-lightning[")[1:]:
            assert set(part.partition("]")[0].split(",")) <= set(extras), file


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of a copy of the tree, without what earlier builds left in it."""
    copy, folder = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in ("seminmf_lightning", "configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, copy], check=True)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_tree(wheel: Path) -> None:
    expected = set()
    for folder, inside in (("seminmf_lightning", ""), ("configs", "seminmf_lightning/")):
        files = [file for file in (ROOT / folder).rglob("*") if file.is_file()]
        expected |= {
            inside + str(file.relative_to(ROOT)) for file in files if "__pycache__" not in file.parts
        }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == expected
    assert "seminmf_lightning/py.typed" in packed


@pytest.mark.slow
def test_commands_run_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    home, work = tmp_path / "venv", tmp_path / "work"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    install = ["install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run([sys.executable, "-m", "pip", "--python", python, *install], check=True)
    packages = next((home / "lib").glob("python*")) / "site-packages"
    # Lines of a .pth only extend the path: an editable install of the clone in those folders has no effect.
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "libraries.pth").write_text("\n".join(libraries))
    work.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def seminmf(*arguments: str) -> str:
        done = subprocess.run(
            [home / "bin" / "seminmf", *arguments], cwd=work, text=True, capture_output=True, env=environment,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, (arguments, done.stdout[-2000:], done.stderr[-4000:])
        assert "scripts/" not in done.stdout
        return done.stdout

    module = "import seminmf_lightning; print(seminmf_lightning.__file__)"
    assert str(home) in subprocess.check_output([python, "-c", module], text=True, cwd=work, env=environment)
    assert "seminmf report run=" in seminmf("train", "hydra.run.dir=demo")
    assert {"metrics.json", "dictionary.safetensors", "checkpoints", ".hydra", "tensorboard"} <= {
        path.name for path in (work / "demo").iterdir()
    }
    pytest.importorskip("jinja2", reason="the extra report is not installed")
    assert "seminmf train data=shards" in seminmf("harvest", "experiment=vision_demo")
    seminmf("train", "experiment=vision_demo", "hydra.run.dir=vision", "trainer.max_epochs=1")
    seminmf("report", "run=vision", "max_concepts=4")
    assert (work / "vision" / "report.html").stat().st_size > 10_000
    seminmf("train", "-m", "l1_penalty=0.05,0.1", "hydra.sweep.dir=sweep", "trainer.max_epochs=1", *TWO)
    assert len(list((work / "sweep").glob("*/metrics.json"))) == 2
