"""Each choice of signs from the command line: killed, then resumed by two processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bounded import needs_full
from commands import TWO, kill_after_first_checkpoint
from safetensors.torch import load_file
from scipy.sparse import load_npz

from seminmf_lightning.core.constraints import CONSTRAINTS

HALS, KSVD = ["solver=hals", "solver.max_iter=50"], ["solver=ksvd", "solver.replace=0.1"]
IN_CI = [("codes", KSVD, "target_l0=3"), ("both", HALS, "l1_penalty=0"), ("none", HALS, "target_l0=3"),
         ("none", KSVD, "l1_penalty=0.05")]  # fmt: skip
OTHERS = [
    case for signs in CONSTRAINTS if signs != "dictionary" for case in
    [(signs, HALS, penalty) for penalty in ("l1_penalty=0", "l1_penalty=0.05", "target_l0=3")]
    + [(signs, KSVD, penalty) for penalty in ("l1_penalty=0.05", "target_l0=3")]
    if case not in IN_CI
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signs", "solver", "penalty"), IN_CI + [pytest.param(*case, marks=needs_full) for case in OTHERS]
)
def test_killed_by_one_and_resumed_by_two_processes(
    script, tmp_path: Path, signs: str, solver: list[str], penalty: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = (torch.randn(6000, 8, generator=generator) @ torch.randn(8, 32, generator=generator)).abs()
    np.save(tmp_path / "rows.npy", rows.numpy())
    common = [
        "data=npy", f"data.path={tmp_path}/rows.npy", "nb_concepts=8", f"nonnegative={signs}",
        penalty, "tol=0", *solver, "solver.update_every=2",
        f"data.batch_size={64 if 'solver=ksvd' in solver else 8}",
        "callbacks.checkpoint_time.seconds=0.1", "trainer.max_epochs=2", "trainer.enable_progress_bar=false",
        "trainer.accelerator=cpu",
    ]  # fmt: skip
    done = script("train", *common, f"hydra.run.dir={tmp_path}/whole")
    assert str(CONSTRAINTS[signs]) in " ".join(done.stdout.split())
    run = tmp_path / "killed"
    kill_after_first_checkpoint(common, run)
    script("train", *common, f"hydra.run.dir={run}", f"ckpt_path={run}/checkpoints/last.ckpt", *TWO)
    ours, whole = (load_file(folder / "dictionary.safetensors")["D"] for folder in (run, tmp_path / "whole"))
    assert torch.equal(ours, whole)
    assert not CONSTRAINTS[signs].forbidden(ours).any()
    script("evaluate", f"run={run}")
    script("report", f"run={run}")
    assert ('"one_sign":true' in (run / "report.html").read_text()) == CONSTRAINTS[signs].nonnegative_codes
    script("encode", f"run={run}", "encoder=omp", "encoder.nonzeros=3")
    metrics = json.loads((run / "metrics.json").read_text())
    assert not CONSTRAINTS[signs].nonnegative_codes or (load_npz(run / "codes.npz").data >= 0).all()
    exact = penalty == "l1_penalty=0" and not CONSTRAINTS[signs].nonnegative_codes
    assert (metrics["optimality_gap"] is not None) == exact
