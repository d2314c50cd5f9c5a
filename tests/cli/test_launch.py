"""Sweeps as jobs, tasks of SLURM, two machines: each equals one process and writes one directory."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from commands import ROOT
from hydra import compose, initialize_config_dir
from omegaconf.errors import InterpolationResolutionError
from safetensors.torch import load_file

TRAIN = str(ROOT / "scripts" / "train.py")
SMALL = ("nb_concepts=8", "trainer.max_epochs=2", "trainer.enable_progress_bar=false")
LAUNCHERS = ("SEMINMF_RUN_ID", "RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_", "TORCHELASTIC_", "MASTER_")


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what any launcher has put there."""
    return {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS)} | more


def free_port() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return str(sock.getsockname()[1])


def together(
    commands: list[list[str]], environments: list[Mapping[str, str]], folders: list[Path]
) -> list[str]:
    """Run processes that share no parent but this one at the same time, and return what they said."""
    started = [
        subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        for command, env, cwd in zip(commands, environments, folders, strict=True)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    for process, text in zip(started, said, strict=True):
        assert process.returncode == 0, text[-4000:]
    return said


def dictionary(run: Path) -> torch.Tensor:
    return load_file(run / "dictionary.safetensors")["D"]


def assert_equal_runs(one: Path, many: Path) -> None:
    assert (dictionary(one) - dictionary(many)).abs().max() < 1e-6
    first, second = (json.loads((run / "metrics.json").read_text()) for run in (one, many))
    assert first["rows_seen"] == second["rows_seen"]
    assert first["r2"] == pytest.approx(second["r2"], abs=1e-5)


def torchrun(node: int, port: str, *arguments: str) -> list[str]:
    """The agent of one of two nodes, with one worker."""
    where = [
        "--nnodes=2",
        f"--node-rank={node}",
        "--nproc-per-node=1",
        "--master-addr=127.0.0.1",
        f"--master-port={port}",
    ]
    return [sys.executable, "-m", "torch.distributed.run", *where, *arguments]


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [0.1, 0])
def test_two_torchrun_agents_equal_one_process_in_one_directory(
    script, npy: Path, tmp_path: Path, penalty: float
) -> None:
    common = ("data=npy", f"data.path={npy}", f"l1_penalty={penalty}", *SMALL)
    script("train", *common, "trainer=cpu", f"hydra.run.dir={tmp_path}/one")
    port, nodes = free_port(), [tmp_path / "node0", tmp_path / "node1"]  # two disks, as it were
    for node in nodes:
        node.mkdir()
    commands = [
        torchrun(node, port, TRAIN, "trainer=ddp", "trainer.accelerator=cpu", *common) for node in (0, 1)
    ]
    together(commands, [environment(PYTHONPATH=str(ROOT))] * 2, nodes)
    first, second = ([path.parent for path in node.rglob("train.log")] for node in nodes)
    assert len(first) == len(second) == 1
    assert first[0].relative_to(nodes[0]) == second[0].relative_to(nodes[1])
    assert_equal_runs(tmp_path / "one", first[0])
    assert {path.name for path in second[0].iterdir()} == {"train.log"}  # the rest is of the first process


@pytest.mark.slow
def test_a_restart_by_torchrun_keeps_the_run_id(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(
        "import os, sys\nfrom seminmf_lightning.cli import launch\n"
        "launch.set_run_id()\n"
        "print('id', os.environ['SEMINMF_RUN_ID'], launch.is_first_process())\n"
        "sys.exit(os.environ['TORCHELASTIC_RESTART_COUNT'] == '0')\n"
    )
    port = free_port()
    commands = [
        torchrun(node, port, "--max-restarts=1", "--monitor-interval=0.1", "worker.py") for node in (0, 1)
    ]
    said = together(commands, [environment(PYTHONPATH=str(ROOT))] * 2, [tmp_path] * 2)
    found = [line.split()[1:] for text in said for line in text.splitlines() if line.startswith("id ")]
    assert len(found) == 4
    assert len({name for name, _ in found}) == 1
    assert sorted(first for _, first in found) == ["False", "False", "True", "True"]


def slurm_task(task: int, port: str, **more: str) -> dict[str, str]:
    """What srun tells task ``task`` of two, on two nodes."""
    return environment(
        SLURM_JOB_ID="4711", SLURM_JOB_NAME="train", SLURM_STEP_ID="0", SLURM_NNODES="2", SLURM_NTASKS="2",
        SLURM_NTASKS_PER_NODE="1", SLURM_NODELIST="127.0.0.1", SLURM_PROCID=str(task), SLURM_NODEID=str(task),
        SLURM_LOCALID="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=port, PYTHONPATH=str(ROOT), **more,
    )  # fmt: skip


@pytest.mark.slow
def test_two_tasks_of_slurm_equal_one_process_in_one_directory(script, npy: Path, tmp_path: Path) -> None:
    common = ("data=npy", f"data.path={npy}", "l1_penalty=0.1", *SMALL)
    script("train", *common, "trainer=cpu", f"hydra.run.dir={tmp_path}/one")
    port = free_port()
    command = [sys.executable, TRAIN, "trainer=slurm", "trainer.accelerator=cpu", *common]
    together([command] * 2, [slurm_task(task, port) for task in (0, 1)], [tmp_path] * 2)
    assert_equal_runs(tmp_path / "one", tmp_path / "outputs" / "slurm-4711")


def test_trainer_slurm_says_what_it_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", environment())
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("train", overrides=["trainer=slurm"])
    with pytest.raises(InterpolationResolutionError, match="'SLURM_NNODES' not found"):
        _ = cfg.trainer.num_nodes


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        # torchrun inside SLURM numbers the nodes itself
        ({"RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "1"}, True),
        ({"RANK": "3", "LOCAL_RANK": "0", "SLURM_PROCID": "0"}, False),
        ({"SLURM_PROCID": "2"}, False),
    ],
)
def test_one_process_is_the_first(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], first: bool
) -> None:
    from seminmf_lightning.cli import launch

    monkeypatch.setattr(os, "environ", environment(**variables))
    assert launch.is_first_process() == first


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "train"}, "slurm-7"),
        (
            {
                "SLURM_JOB_ID": "7",
                "SLURM_STEP_ID": "0",
                "SLURM_JOB_NAME": "train",
                "SLURM_RESTART_COUNT": "1",
            },
            "slurm-7",
        ),
        # a shell that starts runs
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "bash"}, None),
        ({"SLURM_JOB_ID": "7"}, None),  # a batch script that starts runs without srun
        ({"SEMINMF_RUN_ID": "mine", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}, "mine"),
        ({}, None),
    ],
)
def test_the_run_id_is_the_job_or_the_time(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], name: str | None
) -> None:
    from seminmf_lightning.cli import launch

    monkeypatch.setattr(os, "environ", environment(**variables))
    launch.set_run_id()
    found = os.environ["SEMINMF_RUN_ID"]
    assert found == name if name else found.startswith("20")


def test_a_torchrun_without_a_store_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from seminmf_lightning.cli import launch

    monkeypatch.setattr(
        os, "environ", environment(TORCHELASTIC_RUN_ID="none", TORCHELASTIC_USE_AGENT_STORE="False")
    )
    with pytest.raises(RuntimeError, match="set SEMINMF_RUN_ID"):
        launch.set_run_id()


SBATCH = """#!/bin/bash
# Runs an array of two jobs, one after the other, as slurmd would: with nothing of the environment but what
# SLURM sets.
cp "$1" {folder}/submitted.sh
export SLURM_ARRAY_JOB_ID=4711 SLURM_NTASKS=1 SLURM_NTASKS_PER_NODE=1 SLURM_PROCID=0 SLURM_LOCALID=0
export SLURM_NODEID=0 SLURM_NNODES=1 SLURM_JOB_NUM_NODES=1
export SLURM_JOB_NODELIST=n1 SLURM_STEP_ID=0 SLURM_JOB_NAME=train
for task in 0 1; do
  env -u SEMINMF_RUN_ID -u PYTHONPATH SLURM_ARRAY_TASK_ID=$task SLURM_JOB_ID=$((4711 + task)) bash "$1"
done >{folder}/jobs.log 2>&1 &
echo "Submitted batch job 4711"
"""
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do [[ "$1" == *=* || "$1" == --unbuffered ]] && shift || shift 2; done
exec "$@"
"""
SACCT = """#!/bin/bash
echo 'JobID|State|NodeList'
"""


@pytest.mark.slow
def test_a_sweep_becomes_an_array_of_slurm(script, npy: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("sbatch", SBATCH.format(folder=tmp_path)), ("srun", SRUN), ("sacct", SACCT)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    script(
        "train", "launcher=submitit_slurm", "hydra.launcher.partition=gpus", "l1_penalty=0,0.1", "data=npy",
        f"data.path={npy}", "trainer.accelerator=cpu", *SMALL, f"hydra.sweep.dir={tmp_path}/sweep",
        PATH=f"{programs}:{os.environ['PATH']}",
    )  # fmt: skip
    header = (tmp_path / "submitted.sh").read_text()
    for line in (
        "--array=0-1%2", "--partition=gpus", "--time=720", "--gpus-per-node=1", "--cpus-per-task=8",
        "--nodes=1", "--ntasks-per-node=1", "--signal=USR2@120",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in header
    assert len(list((tmp_path / "sweep").glob("*/metrics.json"))) == 2, (tmp_path / "jobs.log").read_text()


@pytest.mark.slow
def test_a_sweep_of_local_jobs_has_one_directory(script, npy: Path, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    script(
        "train", "launcher=submitit_local", "l1_penalty=0,0.1", "data=npy", f"data.path={npy}", "trainer=cpu",
        *SMALL, f"hydra.sweep.dir={tmp_path}/sweep",
    )  # fmt: skip
    assert len(list((tmp_path / "sweep").glob("*/metrics.json"))) == 2


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ({}, (0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "4", "SLURM_PROCID": "0"}, (3, 4)),
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (1, 2)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (0, 1)),  # a batch script that does not use srun
        (
            {"SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "interactive", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"},
            (0, 1),
        ),
    ],
)
def test_each_task_of_srun_has_its_part_of_a_harvest(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], part: tuple[int, int]
) -> None:
    from seminmf_lightning.cli import launch

    monkeypatch.setattr(os, "environ", environment(**variables))
    assert launch.rank_and_world() == part
