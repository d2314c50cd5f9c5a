"""The formulas of scripts/scale.py: against the page, against what processes really send, against the sharded sketch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import scale
from conftest import ROOT

PAGE = (ROOT / "docs" / "scale.md").read_text()


def test_the_page_shows_what_the_script_prints() -> None:
    for table in scale.report(scale.Problem(), scale.Machine(), update_rows=131_072).split("\n\n"):
        assert table in PAGE


@pytest.mark.parametrize("penalty", [0.1, pytest.param(0.0, marks=pytest.mark.slow)])
def test_processes_exchange_what_the_formulas_say(penalty: float) -> None:
    found = scale.measure(2, penalty)
    settings = {name: int(found[name]) for name in ("rows", "batch", "features", "concepts")}
    wanted = scale.expected(2, penalty, **settings)
    assert found["messages"] == wanted["messages"]
    assert found["payload"] == wanted["payload"]
    if found["wire"]:  # else this user may not make a network of its own
        assert wanted["wire"] <= found["wire"] <= 1.03 * wanted["wire"]


@pytest.mark.parametrize(
    ("rows", "batch", "updates"),
    [(512, 512, 1), (513, 512, 2), (10_000, 1_024, 20), (10_000, 256, 20), (10_000, 77, 22), (5_000, 2_000, 10)],
)
def test_updates_of_a_pass_are_those_of_training(rows: int, batch: int, updates: int) -> None:
    import torch
    from lightning import Trainer

    from seminmf_lightning import ActivationDataModule, SemiNMFModule

    assert scale.codes_updates(rows, batch) == updates
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", max_epochs=1, limit_val_batches=0, use_distributed_sampler=False, **quiet)
    A = torch.randn(rows, 6, generator=torch.Generator().manual_seed(0))
    trainer.fit(SemiNMFModule(3, l1_penalty=0.1), ActivationDataModule(A, batch_size=batch, val_fraction=0))
    assert trainer.global_step == updates


def test_what_fits_and_what_does_not() -> None:
    problem, machine = scale.Problem(), scale.Machine()
    largest = scale.largest_concepts(problem, machine)
    for k, fits in ((largest, True), (largest + 1, False)):
        cost = scale.codes(scale.replace(problem, concepts=k), machine)
        assert (cost.memory <= machine.memory) == fits
    balanced = scale.balanced_rows(problem, machine)
    for rows, hidden in ((balanced, True), (balanced - machine.gpus, False)):
        network, arithmetic = scale.sharded(problem, machine, rows).seconds(machine)
        assert (network <= arithmetic) == hidden


CHECK = """
torch.manual_seed(0)
k, d, s, rank = 8, 6, 3, mesh.get_local_rank()
A, D = torch.randn(20, d, dtype=torch.float64), torch.rand(k, d, dtype=torch.float64)
values, atoms = torch.randn(20, s, dtype=torch.float64), torch.stack([torch.randperm(k)[:s] for _ in range(20)])
Z = torch.zeros(20, k, dtype=torch.float64).scatter_(1, atoms, values)
from torch.distributed.tensor.debug import CommDebugMode
with CommDebugMode() as traffic:
    S, P = statistics(*(x.chunk(2)[rank] for x in (A, values, atoms)), k)
    new = gradient_step(owned(D), S, P, 0.01)
assert new.placements == S.placements == P.placements == (Shard(0),)
assert new.to_local().shape == (k // 2, d) and S.to_local().shape == (k // 2, k)
dense = (D - 0.01 * (Z.T @ Z @ D - Z.T @ A)).clamp(min=0)
dense = dense / dense.norm(dim=1, keepdim=True).clamp(min=1)
for sharded, whole in ((S, Z.T @ Z), (P, Z.T @ A), (new, dense)):
    torch.testing.assert_close(sharded.full_tensor(), whole)
print({str(name).split(".")[-1]: count for name, count in traffic.get_comm_counts().items()}, flush=True)
torch.distributed.barrier()
import os
os._exit(0)  # gloo's threads may abort a process that ends in the usual way
"""


def test_the_sharded_sketch_is_the_dense_step(tmp_path: Path) -> None:
    (sketch,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "sketch.py").write_text(sketch + CHECK)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(tmp_path / "sketch.py")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "'reduce_scatter_tensor': 1" in done.stdout
    assert "all_reduce" not in done.stdout
