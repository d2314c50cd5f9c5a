"""The console command: its list, help, errors, completion; and what it leaves of the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from commands import ROOT

from seminmf_lightning.cli import commands, main
from seminmf_lightning.cli.help import choices_of

NAMES = [
    "compare", "concepts", "encode", "evaluate", "export", "harvest", "report", "show-rows", "steer", "train",
]  # fmt: skip


def typed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """Call the console command with these arguments."""
    monkeypatch.setattr("sys.argv", ["/usr/bin/seminmf", *arguments])
    main.main()


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_without_a_subcommand_the_list_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    typed(monkeypatch, *arguments)
    shown = capsys.readouterr().out
    assert list(commands.find_commands()) == sorted(NAMES)
    assert all(f"  {name} " in shown for name in NAMES)
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize(
    ("word", "nearest"), [("trian", "train"), ("show_row", "show-rows"), ("evalute", "evaluate")]
)
def test_an_unknown_subcommand_suggests_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str, nearest: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        typed(monkeypatch, word)
    assert ended.value.code == 2
    assert f"did you mean 'seminmf {nearest}'" in capsys.readouterr().err


def test_the_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import seminmf_lightning

    typed(monkeypatch, "--version")
    assert capsys.readouterr().out == f"seminmf {seminmf_lightning.__version__}\n"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "compare"])
def test_help_lists_groups_keys_and_examples(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    import yaml

    typed(monkeypatch, name, "--help")
    shown = capsys.readouterr().out
    command = commands.find_commands()[name]
    assert command.config is not None
    assert len(command.examples) >= 3
    assert all(f"seminmf {name} {example}" in shown for example in command.examples)
    for key in yaml.safe_load(command.config.read_text()):
        assert key in ("defaults", "hydra", "run_dir") or f"  {key}=" in shown
    for group, choices in choices_of(command.config, [command.config.parent]).items():
        assert f"  {group} " in shown
        assert all(choice in shown for choice in choices)


def test_help_lists_the_keys_of_a_choice_and_configs_of_the_user(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nnb_concepts: 7\n")
    typed(monkeypatch, "train", "data=npy", "--config-dir", str(tmp_path), "--help")
    shown = capsys.readouterr().out
    assert "data.path=???" in shown
    assert "data.val_fraction=0.1" in shown and "rows held out" in shown  # from the file that it extends
    assert " mine" in shown


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("seminmf sh", "show-rows"),
        ("seminmf train solv", "solver="),
        ("seminmf train solver=h", "solver=hals"),
        ("seminmf harvest inp", "inputs="),
        ("seminmf report max_m", "max_mb="),
    ],
)
def test_the_shell_completes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, expected: str
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    typed(monkeypatch, "-sc", "query=bash")
    assert expected in capsys.readouterr().out.split()


def test_completion_is_installed_for_the_console_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "-sc", "install=bash")
    assert capsys.readouterr().out.strip().endswith(" seminmf")


def run_fake(monkeypatch: pytest.MonkeyPatch, task: object, arguments: Sequence[str]) -> None:
    """Run ``seminmf show-rows`` with a task of ours."""
    from seminmf_lightning.cli import show_rows

    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(show_rows, "main", task)
    typed(monkeypatch, "show-rows", "store=s", *arguments)


def test_jobs_see_the_command_line_that_the_user_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def task(cfg: object) -> None:
        seen.append((list(sys.argv), os.environ.get("HYDRA_FULL_ERROR"), cfg.count))  # type: ignore[attr-defined]

    run_fake(monkeypatch, task, ["count=3"])
    run_fake(monkeypatch, task, ["-m", "count=4,5", "hydra.sweep.dir=."])
    assert seen[0] == (["/usr/bin/seminmf", "show-rows", "store=s", "count=3"], None, 3)
    assert [count for _, _, count in seen] == [3, 4, 5]
    assert all(argv[:2] == ["/usr/bin/seminmf", "show-rows"] for argv, _, _ in seen)


@pytest.mark.parametrize("debug", [False, True])
def test_errors_are_their_message_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], debug: bool
) -> None:
    def task(cfg: object) -> None:
        raise ValueError("rows: 3 is too few; give count=10")

    if debug:
        with pytest.raises(ValueError, match="too few"):
            run_fake(monkeypatch, task, ["--debug"])
    else:
        with pytest.raises(SystemExit) as ended:
            run_fake(monkeypatch, task, [])
        assert ended.value.code == 1
        assert capsys.readouterr().err == "error: rows: 3 is too few; give count=10\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("concepts",), "run must be given: run=...; `seminmf concepts --help` has examples"),
        (("concepts", "--run", "outputs/mine"), "--run: settings are written without dashes: run=..."),
        (("report", "--max-mb=3"), "--max-mb=3: settings are written without dashes: max_mb=..."),
        (("report", "outputs/mine"), "'outputs/mine' is no key=value; settings are written key=value"),
    ],
)
def test_a_first_try_is_told_how_to_write_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    with pytest.raises(SystemExit):
        typed(monkeypatch, *arguments)
    assert capsys.readouterr().err == f"error: {message}\n"


def test_options_may_stand_anywhere_and_false_keys_are_flags() -> None:
    config = commands.find_commands()["harvest"].config
    assert config is not None
    arguments = ["limit=3", "-m", "--list", "--config-dir", "mine", "seed=1"]
    options, overrides = main._split(config, arguments)
    assert options == ["-m", "--config-dir", "mine"]
    assert overrides == ["limit=3", "list=true", "seed=1"]


@pytest.mark.parametrize("name", NAMES)
def test_each_script_is_one_command(name: str) -> None:
    lines = (ROOT / "scripts" / f"{name.replace('-', '_')}.py").read_text().splitlines()
    assert len(lines) <= 6
    assert lines[-1].strip() == f'run("{name}")'
