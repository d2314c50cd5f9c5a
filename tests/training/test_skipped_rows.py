"""Rows with NaN or Inf that are left out: each is listed, counted once, and missing from training alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from commands import kill_after_first_checkpoint
from fitting import fit
from safetensors.torch import load_file

from seminmf_lightning import ActivationDataModule
from seminmf_lightning.data import NpyRows
from seminmf_lightning.data.bad_rows import LISTED, SkippedRows, bad_rows

BAD = {5: np.nan, 77: np.inf, 400: -np.inf, 599: np.nan}
TWO = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")


@pytest.fixture
def bad_files(tmp_path: Path, signed: torch.Tensor) -> tuple[str, Path]:
    """Four rows of 600 in two of three files hold NaN or Inf; and one file of the others."""
    A = signed.numpy().copy()
    np.save(tmp_path / "clean.npy", np.delete(A, list(BAD), axis=0))
    for row, value in BAD.items():
        A[row, 3] = value
    for name, part in zip("abc", np.split(A, [300, 390]), strict=True):
        np.save(tmp_path / f"part_{name}.npy", part)
    return str(tmp_path / "part_*.npy"), tmp_path / "clean.npy"


def listed(run: Path) -> list[dict[str, str]]:
    with open(run / "skipped_rows.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_skipping_rows_is_training_without_them(tmp_path: Path, bad_files: tuple[str, Path]) -> None:
    bad, clean = bad_files
    data = ActivationDataModule(bad, val_fraction=0, on_bad_rows="skip")
    with pytest.warns(
        UserWarning, match=r"part_a\.npy, row 5: feature 3 is nan; such rows are left out"
    ) as warned:
        skipping = fit(data, tmp_path / "run")
    assert sum("left out" in str(one.message) for one in warned) == 1
    whole = fit(ActivationDataModule(str(clean), val_fraction=0), tmp_path / "clean")
    assert (skipping.dictionary - whole.dictionary).abs().max() < 1e-6
    assert skipping.rows_seen == whole.rows_seen == 596
    assert skipping.metrics == pytest.approx(whole.metrics)
    found = listed(tmp_path / "run")
    assert [(Path(row["file"]).name, int(row["row_in_file"]), int(row["row"])) for row in found] == [
        ("part_a.npy", 5, 5), ("part_a.npy", 77, 77), ("part_c.npy", 10, 400), ("part_c.npy", 209, 599),
    ]  # fmt: skip
    assert [row["reason"] for row in found] == [f"feature 3 is {value}" for value in BAD.values()]


def test_rows_are_skipped_in_every_use_but_prediction(tmp_path: Path, bad_files: tuple[str, Path]) -> None:
    data = ActivationDataModule(
        bad_files[0], val_fraction=0.5, on_bad_rows="skip", batch_size=64, sample_rows=10
    )
    module = fit(data, tmp_path, l1_penalty=0.05, tol=0)
    assert data.train_rows is not None
    in_training = np.isin(list(BAD), data.train_rows.rows(np.arange(len(data.train_rows)))).sum()
    assert 0 < in_training < len(BAD)
    assert module.rows_seen == 3 * (len(data.train_rows) - in_training)
    # Held-out rows too, and each row once in three epochs.
    assert len(data.skipped_rows) == len(listed(tmp_path)) == len(BAD)
    assert all(int(row["first_epoch"]) <= 1 for row in listed(tmp_path))
    assert data.held_out_sample(1000).isfinite().all()
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    with pytest.raises(ValueError, match=r"part_a\.npy, row 5.*only training and validation skip rows"):
        trainer.predict(module, data)


def test_too_many_bad_rows_are_an_error(tmp_path: Path, bad_files: tuple[str, Path]) -> None:
    data = ActivationDataModule(bad_files[0], on_bad_rows="skip", max_skipped=0.005)
    with pytest.raises(
        ValueError, match=r"4 of 600 rows hold NaN or Inf, more than data\.max_skipped=0\.50% .*listed in"
    ):
        fit(data, tmp_path / "run")
    assert len(listed(tmp_path / "run")) == 4
    np.save(tmp_path / "nan.npy", np.full((30, 4), np.nan))
    with pytest.raises(ValueError, match=r"all of the 27 rows sampled hold NaN or Inf"):
        fit(ActivationDataModule(str(tmp_path / "nan.npy"), on_bad_rows="skip", max_skipped=1.0), tmp_path)
    with pytest.raises(ValueError, match=r"data\.on_bad_rows must be one of error, skip"):
        ActivationDataModule(str(tmp_path / "nan.npy"), on_bad_rows="drop")


def test_large_numbers_are_not_bad_rows() -> None:
    A = torch.tensor(
        [[3e38, 3e38], [1.0, float("inf")], [float("inf"), float("-inf")], [0.0, float("nan")], [1.0, 2.0]]
    )
    assert bad_rows(A).tolist() == [False, True, True, True, False]


def test_the_list_is_bounded_and_the_count_is_not(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.full((LISTED + 50, 2), np.nan, dtype=np.float32))
    source = NpyRows(str(tmp_path / "rows.npy"))
    rows = torch.arange(len(source))
    for rank in range(2):  # both meet all of them, and the second is killed in the middle of a record
        skipped = SkippedRows(source, max_share=1.0)
        skipped.keep_in(tmp_path / "run", rank, 2, resumed=rank == 1)
        skipped._row_ids.clear()
        batch = skipped.drop((source.read(rows.numpy()), rows, torch.tensor([50, LISTED])), 1)
        assert [part.tolist() for part in batch[1:]] == [[], [0, 0]]
    with open(tmp_path / "run" / "skipped_rows.1.part", "ab") as part:
        part.write(b"half")
    resumed = SkippedRows(source, max_share=1.0)
    resumed.keep_in(tmp_path / "run", 1, 2, resumed=True)
    resumed.write_list()
    assert len(listed(tmp_path / "run")) == LISTED
    assert (
        f"skipped {LISTED + 50:,} rows of 1 file with NaN or Inf, the first {LISTED:,} listed"
        in resumed.summary()
    )


class StopInSecondEpoch(lightning.Callback):
    """Save a checkpoint within the second epoch, and raise."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_batch_end(self, trainer: lightning.Trainer, module, outputs, batch, index: int) -> None:
        if (trainer.current_epoch, index) == (1, 12):
            trainer.save_checkpoint(self.file)
            raise KeyError("stopped")


def test_a_resumed_fit_keeps_the_list_of_the_first_one(tmp_path: Path, bad_files: tuple[str, Path]) -> None:
    last, recipe = tmp_path / "last.ckpt", {"l1_penalty": 0.05, "tol": 0}
    settings = {"on_bad_rows": "skip", "batch_size": 20, "sample_rows": 10, "val_fraction": 0}
    with pytest.raises(KeyError):
        fit(ActivationDataModule(bad_files[0], **settings), tmp_path, StopInSecondEpoch(last), **recipe)
    before = listed(tmp_path)
    assert len(before) == len(BAD)
    data = ActivationDataModule(bad_files[0], **settings)
    resumed = fit(data, tmp_path, ckpt_path=str(last), **recipe)
    assert len(listed(tmp_path)) == len(data.skipped_rows) == len(BAD)
    assert resumed.rows_seen == 3 * 596
    assert listed(tmp_path) == before  # with its first epochs


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [0.0, 0.05])
def test_two_processes_skip_as_one_does(
    script, tmp_path: Path, bad_files: tuple[str, Path], penalty: float
) -> None:
    data = ActivationDataModule(bad_files[0], on_bad_rows="skip", batch_size=77)
    one = fit(data, tmp_path / "one", l1_penalty=penalty)
    two = script(
        "train", "data=npy", f"data.path={bad_files[0]}", "data.on_bad_rows=skip", "data.batch_size=77",
        "nb_concepts=8",
        f"l1_penalty={penalty}", "trainer.max_epochs=3", f"hydra.run.dir={tmp_path}/two", *TWO,
    )  # fmt: skip
    assert "skipped 4 rows of 2 files with NaN or Inf, listed in" in two.stdout
    assert (one.dictionary - load_file(tmp_path / "two" / "dictionary.safetensors")["D"]).abs().max() < 1e-6
    metrics = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert (metrics["rows_skipped"], metrics["rows_seen"]) == (4, one.rows_seen)
    assert metrics["r2"] == pytest.approx(one.metrics["r2"], abs=1e-5)
    assert [row["row"] for row in listed(tmp_path / "one")] == [
        row["row"] for row in listed(tmp_path / "two")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_forgets_no_skipped_row_and_counts_none_twice(
    script, tmp_path: Path, processes: int
) -> None:
    A = np.random.default_rng(0).standard_normal((12_000, 16)).astype(np.float32)
    A[::500, 2] = np.nan
    np.save(tmp_path / "rows.npy", A)
    common = [
        "data=npy", f"data.path={tmp_path}/rows.npy", "data.on_bad_rows=skip", "nb_concepts=8",
        "l1_penalty=0.05",
        "data.sample_rows=200", f"data.batch_size={8 * processes}", "trainer.max_epochs=1",
        "callbacks.checkpoint_time.seconds=0.3", "trainer.enable_progress_bar=false",
        *(TWO if processes == 2 else ()),
    ]  # fmt: skip
    run = tmp_path / "run"
    last = run / "checkpoints" / "last.ckpt"
    kill_after_first_checkpoint(common, run)
    assert not (run / "skipped_rows.csv").exists()
    assert 0 < torch.load(last, weights_only=True)["batch"] < 1350 // processes  # within the epoch
    script("train", *common, f"hydra.run.dir={run}", f"ckpt_path={last}")
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["rows_skipped"] == 24
    assert [int(row["row"]) for row in listed(run)] == list(range(0, 12_000, 500))


@pytest.mark.slow
def test_figures_of_held_out_rows_and_reports_go_on_without_bad_rows(
    script, tmp_path: Path, bad_files: tuple[str, Path]
) -> None:
    run, data = (
        tmp_path / "run",
        ("data=npy", f"data.path={bad_files[0]}", "data.on_bad_rows=skip", "data.val_fraction=0.5"),
    )
    script("train", *data, "nb_concepts=8", f"hydra.run.dir={run}")
    script("evaluate", f"run={run}", *data, "split=held_out")
    metrics = json.loads((run / "evaluation.json").read_text())
    assert 296 <= metrics["rows"] < 300
    assert np.isfinite(metrics["r2"])
    assert "skipped 4 rows" in script("report", f"run={run}").stdout
    done = script("encode", f"run={run}", *data, check=False)
    assert "part_a.npy, row 5: feature 3 is nan" in done.stderr
    assert not list(run.glob("codes*.np?"))
