"""evaluate suite=...: files, table, picture, and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import ROOT
from hydra import compose, initialize_config_dir

from seminmf_lightning import SemiNMF
from seminmf_lightning.cli import commands, evaluate, suites
from seminmf_lightning.cli.help import help_of
from seminmf_lightning.cli.overrides import check
from seminmf_lightning.suites import Context, Estimate, Line, Result, Suite


@dataclass(frozen=True, kw_only=True)
class Constant(Suite):
    """A suite that measures nothing."""

    value: float = 0.5

    def run(self, context: Context) -> Result:
        context.show("step", 1, 2)
        lines = [Line("run", {"a": Estimate(self.value, 0.01)}), Line("other [b]", {"a": Estimate(0.4)})]
        return Result(title="constant", lines=lines, columns={"a": "A"}, plotted=("a",), notes=["a note"])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    model = SemiNMF(nb_concepts=2)
    model.fit(torch.rand(20, 4), max_iter=2)
    model.save(tmp_path / "run" / "dictionary.safetensors")
    return tmp_path / "run"


def composed(run: Path, *overrides: str) -> Any:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose("evaluate", overrides=["trainer=cpu", f"run={run}", *overrides])


def test_results_are_written_printed_drawn_and_kept(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for value in (0.25, 0.5):
        cfg = composed(run, f"+suite={{test_suites: {{value: {value}}}}}")
        results = evaluate.main(cfg)
    file = run / "suite_test_suites.json"
    assert json.loads(file.read_text()) == results["test_suites"]
    assert results["test_suites"]["lines"][0] == {"line": "run", "a": 0.5, "a_se": 0.01}
    assert json.loads(Path(f"{file}.previous").read_text())["lines"][0]["a"] == 0.25
    assert "other [b]" in (run / "suite_test_suites.svg").read_text()
    shown = capsys.readouterr().out
    for part in ("0.500 ±0.010", "other [b]", "a note", "suite_test_suites.json", "suite_test_suites.svg"):
        assert part in shown
    assert not (run / "evaluation.json").exists()


def test_what_suites_do_not_read_is_refused(run: Path) -> None:
    for overrides, message in (
        (["against=other"], r"against= is not read with suite="),
        (["encoder=omp"], r"encoder= is not read with suite="),
        (["split=held_out"], r"split=held_out is not read with suite="),
    ):
        with pytest.raises(ValueError, match=message):
            suites.run_suites(composed(run, "suite=probes", *overrides))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("suite=probe", r"unknown choice of suite: 'probe'; did you mean 'probes'\? accepted: .*probes"),
        ("suite=[probes,nothing]", r"unknown choice of suite: 'nothing'; accepted: .*probes"),
        ("suite.probes.count=3", r"suite\.probes\.count: suite has no keys; choose suite=\.\.\. first"),
    ],
)
def test_unknown_suites_and_keys_are_refused_with_the_list(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check("seminmf_lightning.configs", "evaluate", ["run=r", override])


def test_keys_of_a_chosen_suite_are_checked() -> None:
    check("seminmf_lightning.configs", "evaluate", ["run=r", "suite=[probes]", "suite.probes.count=3"])
    with pytest.raises(ValueError, match=r"unknown key of suite\.probes: 'cuont'; did you mean 'count'"):
        check("seminmf_lightning.configs", "evaluate", ["run=r", "suite=probes", "suite.probes.cuont=3"])


def test_help_names_the_keys_as_they_are_typed() -> None:
    shown = help_of(commands.find_commands()["evaluate"], ["suite=probes"])
    assert "suite.probes.rows_per_task=512" in shown
    assert "suite=probes suite.probes.count=10" in shown
