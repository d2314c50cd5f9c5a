"""What happens when numbers go wrong: training stops with a report, and good checkpoints stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from commands import ROOT
from diverging import Spoil
from safetensors.torch import load_file

from seminmf_lightning import ActivationDataModule, SemiNMF, SemiNMFModule
from seminmf_lightning.data import NpyRows
from seminmf_lightning.training.divergence import DivergenceError
from seminmf_lightning.training.preemption import TimedCheckpoint


def trainer(folder: Path, *callbacks: lightning.Callback, **options: Any) -> lightning.Trainer:
    last = lightning.pytorch.callbacks.ModelCheckpoint(folder, filename="last", enable_version_counter=False)
    timed = TimedCheckpoint(str(folder / "last.ckpt"), seconds=1e-9)  # after every batch
    return lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[timed, last, *callbacks], **{"max_epochs": 4} | options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("how", "penalty", "words"),
    [
        ("broken", 0.1, "solver=hals returned NaN or Inf"),
        ("broken", 0.0, "solver=hals returned NaN or Inf"),
        ("huge", 0.1, "an atom has norm"),
        ("negative", 0.1, "atoms have negative entries"),
        ("infinite", 0.1, "NaN or Inf"),
        ("infinite", 0.0, "NaN or Inf"),
    ],
)
def test_divergence_stops_training_and_spares_the_checkpoint(
    how: str, penalty: float, words: str, signed: torch.Tensor, tmp_path: Path
) -> None:
    data = ActivationDataModule(signed, batch_size=100)
    module = SemiNMFModule(8, solver={"name": "hals", "update_every": 1}, l1_penalty=penalty, tol=0)
    with pytest.raises(DivergenceError, match=words) as raised:
        trainer(tmp_path, Spoil(how, batch=3)).fit(module, data)
    message = str(raised.value)
    for part in (
        "diverged at step",
        "epoch 1, batch 4",
        "Loss",
        "best",
        "largest |D|",
        "dead atoms",
        "condition",
        "rows seen",
    ):
        assert part in message
    last = tmp_path / "last.ckpt"
    assert f"ckpt_path={last}" in message
    saved = torch.load(last, weights_only=True)
    assert saved["batch"] == 3
    assert saved["state_dict"]["dictionary"].isfinite().all()
    again = SemiNMFModule(8, solver={"name": "hals", "update_every": 1}, l1_penalty=penalty, tol=0)
    trainer(tmp_path).fit(again, data, ckpt_path=last, weights_only=True)
    whole = SemiNMFModule(8, solver={"name": "hals", "update_every": 1}, l1_penalty=penalty, tol=0)
    trainer(tmp_path / "whole").fit(whole, data)
    assert torch.equal(again.dictionary, whole.dictionary)


def test_a_pass_that_is_much_worse_than_one_before_stops_training(
    signed: torch.Tensor, tmp_path: Path
) -> None:
    module = SemiNMFModule(8, solver="hals", l1_penalty=0.1, tol=0)
    with pytest.raises(DivergenceError, match="this epoch explained"):
        trainer(tmp_path, Spoil("vanishing", batch=0, epoch=2)).fit(
            module, ActivationDataModule(signed, batch_size=100)
        )


def test_a_bad_state_is_never_saved(signed: torch.Tensor, tmp_path: Path) -> None:
    module = SemiNMFModule(8, solver="hals", l1_penalty=0.1)
    run = trainer(tmp_path)
    run.fit(module, ActivationDataModule(signed))
    before = (tmp_path / "last.ckpt").read_bytes()
    module.dictionary.data[2, 3] = torch.nan
    with pytest.raises(DivergenceError, match="1 of 8 atoms hold NaN or Inf"):
        run.save_checkpoint(tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("how", ["broken", "huge"])
def test_all_processes_stop_together(script, npy: Path, tmp_path: Path, how: str) -> None:
    run = tmp_path / "run"
    done = script(
        "train", "data=npy", f"data.path={npy}", "nb_concepts=8", "l1_penalty=0.1", f"hydra.run.dir={run}",
        "data.batch_size=100", "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu",
        "+callbacks.spoil._target_=diverging.Spoil", f"+callbacks.spoil.how={how}",
        "+callbacks.spoil.batch=1", "+callbacks.spoil.epoch=1", check=False,
        PYTHONPATH=f"{ROOT / 'tests/helpers'}:{ROOT}",
    )  # fmt: skip
    assert done.returncode != 0
    assert f"ckpt_path={run}/checkpoints/last.ckpt" in (run / "error.txt").read_text()
    assert (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]["dictionary"]
        .isfinite()
        .all()
    )


# --- numbers at the ends of their range
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [0.0, 0.1])
@pytest.mark.parametrize(
    ("dtype", "largest"),
    [(torch.float16, 65_504.0), (torch.bfloat16, 1e38), (torch.float32, 1e20), (torch.float32, 1e-20)],
)
def test_rows_whose_squares_leave_the_range_of_their_type(
    dtype: torch.dtype, largest: float, penalty: float, signed: torch.Tensor, tmp_path: Path
) -> None:
    rows = (signed / signed.abs().max() * largest).to(dtype)
    assert rows.isfinite().all()
    recipe = {"solver": "hals", "l1_penalty": penalty}
    model = SemiNMF(8, **recipe)
    metrics, small = model.fit(rows, max_iter=20) and model.evaluate(rows), SemiNMF(8, **recipe)
    small.fit(signed, max_iter=20)
    assert metrics["r2"] == pytest.approx(small.evaluate(signed)["r2"], abs=0.02)
    module, run = SemiNMFModule(8, **recipe), trainer(tmp_path, max_epochs=2)
    run.fit(module, ActivationDataModule(rows, val_fraction=0))
    run.limit_val_batches = 1.0
    run.validate(module, ActivationDataModule(rows, val_fraction=0), verbose=False)
    assert module.metrics["r2"] == pytest.approx(metrics["r2"], abs=0.1)


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_an_infinite_number_in_a_file_of_float16_is_named(
    penalty: float, signed: torch.Tensor, tmp_path: Path
) -> None:
    rows = signed.numpy() * 1e3
    rows[77, 2] = 1e5
    with np.errstate(over="ignore"):
        np.save(tmp_path / "rows.npy", rows.astype(np.float16))
    data = ActivationDataModule(NpyRows(str(tmp_path / "rows.npy")), val_fraction=0)
    with pytest.raises(ValueError, match=r"rows\.npy, row 77"):
        trainer(tmp_path / "run").fit(SemiNMFModule(8, solver="hals", l1_penalty=penalty), data)


def test_mixed_precision_trains_as_full_precision_does_and_float16_is_refused(
    signed: torch.Tensor, tmp_path: Path
) -> None:
    dictionaries = []
    for precision in ("32-true", "bf16-mixed"):
        module = SemiNMFModule(8, solver="hals", l1_penalty=0.1)
        trainer(tmp_path / precision, precision=precision).fit(module, ActivationDataModule(signed))
        dictionaries.append(module.dictionary.detach())
    assert torch.equal(*dictionaries)


# --- the same twice
# -----------------------------------------------------------------------------------------------

CASES: list[dict[str, Any]] = [
    {"solver": "hals"},
    {"solver": "pgd", "l1_penalty": 0.1},
    {"solver": "hals", "encoder": {"name": "omp", "nonzeros": 3}},
    {"solver": "hals", "target_l0": 4},
    {"solver": "mu", "init": "svd", "nb_concepts": 30},
]


def trained(rows: torch.Tensor, folder: Path, case: dict[str, Any], threads: int = 1) -> torch.Tensor:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        module = SemiNMFModule(**{"nb_concepts": 12} | case)
        trainer(folder, deterministic=True, max_epochs=2).fit(
            module, ActivationDataModule(rows, batch_size=128)
        )
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(False)
    return module.dictionary.detach()


@pytest.mark.filterwarnings("ignore:nb_concepts=.*fits anything")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_deterministic_runs_are_equal_bit_for_bit(
    case: dict[str, Any], signed: torch.Tensor, tmp_path: Path
) -> None:
    first = trained(signed, tmp_path / "first", case)
    assert torch.equal(trained(signed, tmp_path / "second", case), first)
    assert (trained(signed, tmp_path / "threads", case, threads=2) - first).abs().max() < 1e-5


@pytest.mark.slow
def test_deterministic_runs_of_the_script_write_the_same_dictionary(
    script, npy: Path, tmp_path: Path
) -> None:
    written = []
    for name in ("one", "two"):
        common = (
            "data=npy",
            f"data.path={npy}",
            "nb_concepts=8",
            "target_l0=3",
            "trainer.max_epochs=2",
            "trainer=cpu",
        )
        script("train", *common, "trainer.deterministic=true", f"hydra.run.dir={tmp_path / name}")
        written.append(load_file(tmp_path / name / "dictionary.safetensors")["D"])
    assert torch.equal(*written)
