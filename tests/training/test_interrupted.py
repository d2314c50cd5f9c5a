"""Runs that are killed, stopped, or resumed by other numbers of processes: the dictionary is that of an
undisturbed run."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from bounded import FULL, needs_full
from commands import ROOT
from safetensors.torch import load_file

from seminmf_lightning.explain.runs import read_run

TWO = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")
PENALTIES = {"exact": 0, "sparse": 0.05}


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Arguments of a run of some seconds that saves every few batches, and the undisturbed dictionaries."""
    folder = tmp_path_factory.mktemp("problem")
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(6000, 8, generator=generator) @ torch.randn(8, 32, generator=generator)
    np.save(folder / "rows.npy", rows.numpy())
    common = [
        "data=npy", f"data.path={folder}/rows.npy", "nb_concepts=8", "tol=0", "solver.max_iter=200",
        "solver.update_every=2",
        "data.batch_size=8", "callbacks.checkpoint_time.seconds=0.02", "trainer.max_epochs=3",
        "trainer.enable_progress_bar=false", "ckpt_path=auto",
    ]  # fmt: skip
    whole = {}
    for name, penalty in PENALTIES.items():
        run = folder / name
        done = subprocess.run(
            command(common, penalty, run, 1), cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        whole[name] = dictionary(run)
    return {"common": common, "whole": whole}


def command(common: list[str], penalty: float, run: Path, processes: int) -> list[str]:
    script = [
        sys.executable,
        str(ROOT / "scripts" / "train.py"),
        *common,
        f"l1_penalty={penalty}",
        f"hydra.run.dir={run}",
    ]
    return script + list(TWO if processes == 2 else ["trainer=cpu"])


def dictionary(run: Path) -> torch.Tensor:
    return load_file(run / "dictionary.safetensors")["D"]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        arguments, cwd=ROOT, stdout=pipe, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def begun(process: subprocess.Popen[str], run: Path, timeout: float = 90) -> bool:
    """Wait until the run has written a checkpoint of its own; False if it ended first."""
    last = run / "checkpoints" / "last.ckpt"
    before, deadline = last.stat().st_mtime_ns if last.exists() else None, time.monotonic() + timeout
    while time.monotonic() < deadline and process.poll() is None:
        if last.exists() and last.stat().st_mtime_ns != before:
            return True
        time.sleep(0.005)
    return False


def finish(arguments: list[str]) -> str:
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def check(problem: dict, name: str, run: Path) -> None:
    """Bit for bit that of one process which nothing disturbed."""
    assert torch.equal(dictionary(run), problem["whole"][name])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "processes"), [("exact", 1), ("sparse", 1), ("exact", 2), ("sparse", 2)])
def test_killed_again_and_again(problem: dict, tmp_path: Path, name: str, processes: int) -> None:
    wanted, kills, luck = (13 if FULL else 2), 0, random.Random(processes)
    for attempt in range(2 * wanted):
        run = tmp_path / str(attempt)
        arguments = command(problem["common"], PENALTIES[name], run, processes)
        while kills < wanted:
            process = start(arguments)
            if begun(process, run):
                time.sleep(luck.uniform(0, 0.7))
            alive = process.poll() is None
            os.killpg(process.pid, signal.SIGKILL) if alive else None
            process.communicate()
            kills += alive
            if not alive:
                break
        finish(arguments)
        check(problem, name, run)
        assert not list((run / "checkpoints").glob("*.ckpt.*")) or kills  # a kill may leave partial files
        if kills >= wanted:
            break
    print(f"{kills} kills, {attempt + 1} runs: {name}, {processes} process(es)")
    assert kills == wanted


@pytest.mark.parametrize(
    ("name", "processes", "number", "status"),
    [
        pytest.param("sparse", 1, signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param("sparse", 2, signal.SIGTERM, 143, marks=[pytest.mark.slow, needs_full]),
        pytest.param("exact", 2, signal.SIGUSR1, 0, marks=[pytest.mark.slow, needs_full]),
    ],
)
def test_a_signal_saves_and_ends_the_run(
    problem: dict, tmp_path: Path, name: str, processes: int, number: int, status: int
) -> None:
    luck = random.Random(number)
    for attempt in range(20 if FULL and number == signal.SIGTERM else 2 if processes == 2 else 1):
        run = tmp_path / str(attempt)
        arguments = command(problem["common"], PENALTIES[name], run, processes)
        process = start(arguments)
        assert begun(process, run)
        time.sleep(luck.uniform(0, 0.4))
        if number == signal.SIGINT or attempt % 2:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        output = process.communicate(timeout=60)[0]
        if "ckpt_path=auto" not in output:  # it was done already
            assert process.returncode in (0, -number), output[-3000:]
        else:
            assert process.returncode == status, output[-3000:]
        finish(arguments)
        check(problem, name, run)


@pytest.mark.slow
@needs_full
@pytest.mark.parametrize("name", list(PENALTIES))
def test_one_two_one_processes(problem: dict, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    for processes in (1, 2):
        process = start(command(problem["common"], PENALTIES[name], run, processes))
        assert begun(process, run)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
        process.communicate()
        checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        assert checkpoint["batch"] > 0  # within an epoch
    finish(command(problem["common"], PENALTIES[name], run, 1))
    check(problem, name, run)


@pytest.mark.slow
def test_a_finished_run_is_left_alone(problem: dict, tmp_path: Path) -> None:
    arguments = [*command(problem["common"], 0, tmp_path / "run", 1), "data.batch_size=512"]
    finish(arguments)
    before = (tmp_path / "run" / "metrics.json").stat().st_mtime_ns
    assert "is finished already" in finish(arguments)
    assert (tmp_path / "run" / "metrics.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_leftovers_are_no_run_and_a_converged_run_is_not_continued(problem: dict, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt.77.partial").write_text("killed while the first checkpoint was written")
    settings = ("tol=0.5", "trainer.max_epochs=9", "data.batch_size=512", "solver.update_every=1")
    arguments = [*command(problem["common"], 0.05, run, 1), *settings]
    finish(arguments)
    assert not list((run / "checkpoints").glob("*.partial"))
    metrics, D = json.loads((run / "metrics.json").read_text()), dictionary(run)
    (run / "metrics.json").unlink()  # as if it was killed in its last validation
    finish(arguments)
    assert torch.equal(dictionary(run), D)
    before = read_run(run)
    failed = subprocess.run(
        [*arguments, f"ckpt_path={run}/checkpoints/last.ckpt", "nb_concepts=9"], cwd=ROOT, check=False
    )
    assert failed.returncode != 0
    after = read_run(run)  # a resume that failed at once leaves the finished run as it was
    assert (after.status, after.settings, after.metrics) == ("finished", before.settings, before.metrics)
    # The reason is cut to one line, which a long path may fill; error.txt has all of it.
    assert after.reason.startswith("an attempt to resume it failed: ValueError: ")
    assert "it holds a dictionary of 8 concepts x 32 features" in (run / "error.txt").read_text()
    assert not list(run.glob("*.previous"))
    assert json.loads((run / "metrics.json").read_text())["rows_seen"] == metrics["rows_seen"] < 9 * 5400


@pytest.mark.slow
def test_a_resume_with_other_batches_is_refused(problem: dict, tmp_path: Path) -> None:
    arguments = command(problem["common"], 0, tmp_path / "run", 1)
    process = start(arguments)
    assert begun(process, tmp_path / "run")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    done = subprocess.run(
        [*arguments, "data.batch_size=64"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "data.batch_size was 8, is 64" in done.stderr
    finish(arguments)
    check(problem, "exact", tmp_path / "run")


def signalled(number: int, when: str) -> list[str]:
    """Arguments that make a run signal itself."""
    return [
        "+callbacks.signal._target_=file_faults.Signal",
        f"+callbacks.signal.number={int(number)}",
        f"+callbacks.signal.when='{when}'",
    ]


WITH_TESTS = {"PYTHONPATH": f"{ROOT / 'tests/helpers'}:{ROOT}"}


@pytest.mark.slow
def test_a_signal_in_the_last_validation_is_no_success_and_the_run_can_be_finished(
    script, npy: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    common = [
        "data=npy",
        f"data.path={npy}",
        "nb_concepts=4",
        f"hydra.run.dir={run}",
        "ckpt_path=auto",
        "logger=none",
    ]
    done = script("train", *common, *signalled(signal.SIGTERM, "last validation"), check=False, **WITH_TESTS)
    assert done.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM), done.stderr
    assert not (run / "metrics.json").exists()
    script("train", *common)
    assert json.loads((run / "metrics.json").read_text())["rows_seen"] == 540


@pytest.mark.slow
def test_a_sweep_that_ctrl_c_ended_says_how_to_resume_it(script, npy: Path, tmp_path: Path) -> None:
    common = [
        "-m",
        "data=npy",
        f"data.path={npy}",
        "nb_concepts=4,5",
        "trainer.max_epochs=2",
        "l1_penalty=0.1",
        "logger=none",
    ]
    place = f"hydra.sweep.dir={tmp_path}/sweep"
    done = script("train", *common, place, *signalled(signal.SIGINT, "train"), check=False, **WITH_TESTS)
    assert done.returncode == 130
    (overrides,) = re.findall(r"type the same command with (.*)", done.stdout)
    assert overrides == f"{place} ckpt_path=auto"
    assert not (tmp_path / "sweep" / "1").exists()
    script("train", *common, *overrides.split())
    for job in "01":
        assert json.loads((tmp_path / "sweep" / job / "metrics.json").read_text())["rows_seen"] == 2 * 540
