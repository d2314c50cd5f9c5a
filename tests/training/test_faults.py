"""Data that are broken, or break while they are read, and disks that are full: named, and nothing lost."""

from __future__ import annotations

import csv
import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from commands import ROOT, kill_after_first_checkpoint
from file_faults import Break
from harvests import small_store
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file, save_file

from seminmf_lightning import ActivationDataModule, SemiNMFModule
from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.data import HarvestedRows, NpyRows, SafetensorsRows
from seminmf_lightning.data.bad_rows import LISTED, SkippedRows, bad_rows
from seminmf_lightning.dictionary_file import save_dictionary
from seminmf_lightning.io.atomic import DiskFullError, whole_file
from seminmf_lightning.training.checkpoints import AtomicCheckpointIO

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


def fit(
    data: ActivationDataModule,
    root: Path,
    *callbacks: lightning.Callback,
    ckpt_path: str | None = None,
    **recipe: Any,
):
    module = SemiNMFModule(**({"nb_concepts": 8} | recipe))
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", devices=1, logger=False, default_root_dir=root,
        callbacks=list(callbacks),
        plugins=[AtomicCheckpointIO()], enable_checkpointing=any(isinstance(one,
        ModelCheckpoint) for one in callbacks),
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    return module


def listed(run: Path) -> list[dict[str, str]]:
    with open(run / "skipped_rows.csv", newline="") as file:
        return list(csv.DictReader(file))


# --- files that are not as they should be when they are opened
# ----------------------------------------------------------


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    for kind, source in (("npy", NpyRows), ("safetensors", SafetensorsRows)):
        (tmp_path / f"1.{kind}").symlink_to(tmp_path / f"gone.{kind}")  # listed by the glob, and not there
        with pytest.raises(FileNotFoundError, match=rf"1\.{kind}: no such file"):
            len(source(str(tmp_path)))


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    save_file({"activations": torch.rand(200, 8)}, tmp_path / "0.safetensors")
    save_file({"activations": torch.rand(200, 8)}, tmp_path / "1.safetensors")
    os.truncate(tmp_path / "1.safetensors", 3000)
    with pytest.raises(ValueError, match=r"1\.safetensors: not a whole .* it may be truncated"):
        len(SafetensorsRows(str(tmp_path)))


def test_a_flipped_bit_is_found_by_its_checksum(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    shard = Path(HarvestedRows(str(store)).shards[0].name)
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    assert len(HarvestedRows(str(store)))  # of the right size, and finite: only the checksum can tell
    with pytest.raises(
        ValueError, match=rf"{shard.name}: damaged: its sha256 .* run seminmf harvest again"
    ):
        fit(ActivationDataModule(HarvestedRows(str(store), verify=True)), tmp_path / "run")


# --- files that change while a run reads them
# ---------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [0.0, 0.05])
@pytest.mark.parametrize(
    ("how", "word"), [("replace", "replaced"), ("delete", "deleted"), ("write", "changed")]
)
def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, signed: torch.Tensor, how: str, word: str, penalty: float
) -> None:
    for name, part in (("a", signed[:300]), ("b", signed[300:])):
        np.save(tmp_path / f"{name}.npy", part.numpy())
    data = ActivationDataModule(str(tmp_path / "?.npy"), batch_size=100)
    with pytest.raises(ValueError, match=rf"b\.npy: was {word} while it was being read.*last checkpoint"):
        fit(data, tmp_path, Break(how, str(tmp_path / "b.npy")), l1_penalty=penalty)


@pytest.mark.parametrize("kind", ["npy", "safetensors"])
def test_a_file_truncated_while_it_is_read_is_an_error_and_no_crash(tmp_path: Path, kind: str) -> None:
    rows, path = torch.randn(20_000, 32), tmp_path / f"rows.{kind}"
    np.save(path, rows.numpy()) if kind == "npy" else save_file({"activations": rows}, path)
    program = f"""
from test_faults import *
data = ActivationDataModule({str(path)!r}, batch_size=2000)
fit(data, Path({str(tmp_path)!r}), Break("truncate", {str(path)!r}, batch=2))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True, timeout=120, check=False,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/helpers'}:{Path(__file__).parent}"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr  # not -SIGBUS
    assert f"rows.{kind}: was truncated while it was being read" in done.stderr


def test_nan_that_appears_in_the_second_pass_unnoticed_is_named(tmp_path: Path, npy: Path) -> None:
    data = ActivationDataModule(str(npy), val_fraction=0, batch_size=100)
    broken = Break("write_unnoticed", str(npy), epoch=1, batch=0)
    with pytest.raises(ValueError, match=r"rows\.npy, row 7: feature 3 is nan.*data\.on_bad_rows=skip"):
        fit(data, tmp_path, broken, l1_penalty=0.05, tol=0)


# --- rows that are left out
# ---------------------------------------------------------------------------------------------


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
    assert (
        len(data.skipped_rows) == len(listed(tmp_path)) == len(BAD)
    )  # held-out ones too, three passes count once
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
    figures = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert (figures["rows_skipped"], figures["rows_seen"]) == (4, one.rows_seen)
    assert figures["r2"] == pytest.approx(one.metrics["r2"], abs=1e-5)
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
    assert 0 < torch.load(last, weights_only=True)["batch"] < 1350 // processes  # within the pass
    script("train", *common, f"hydra.run.dir={run}", f"ckpt_path={last}")
    figures = json.loads((run / "metrics.json").read_text())
    assert figures["rows_skipped"] == 24
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
    figures = json.loads((run / "evaluation.json").read_text())
    assert 296 <= figures["rows"] < 300
    assert np.isfinite(figures["r2"])
    assert "skipped 4 rows" in script("report", f"run={run}").stdout
    done = script("encode", f"run={run}", *data, check=False)
    assert "part_a.npy, row 5: feature 3 is nan" in done.stderr
    assert not list(run.glob("codes*.np?"))


# --- a full disk
# --------------------------------------------------------------------------------------------------------


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writes beyond ``size`` bytes of a file fail, in the middle of one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def megabyte(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, where we may make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True
        ).returncode
    ):
        pytest.skip("no right to mount a file system")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_disk_that_fills_up_leaves_the_previous_checkpoint(megabyte: Path) -> None:
    path, io = megabyte / "last.ckpt", AtomicCheckpointIO()
    with pytest.raises(DiskFullError, match="make room and start again"):
        io.save_checkpoint({"D": torch.rand(500, 1000)}, path)
    assert names(megabyte) == []
    io.save_checkpoint({"D": torch.ones(100, 1000)}, path)
    for _ in range(2):  # the failed attempt leaves no byte behind
        with pytest.raises(
            DiskFullError,
            match=r"last\.ckpt does not fit .*bytes are free.*stays whole.*ckpt_path=.*last\.ckpt",
        ):
            io.save_checkpoint({"D": torch.rand(500, 1000)}, path)
    assert names(megabyte) == ["last.ckpt"]
    assert torch.equal(torch.load(path, weights_only=True)["D"], torch.ones(100, 1000))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_write_that_fails_part_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    path, io = tmp_path / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"batch": 1}, path)
    before = path.read_bytes()

    def save(checkpoint: object, file: Any) -> None:
        file.write(b"half")
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(DiskFullError, match="the previous checkpoint stays whole") as caught:
        io.save_checkpoint({"batch": 2}, path)
    assert caught.value.errno == code
    assert (names(tmp_path), path.read_bytes()) == (["last.ckpt"], before)


def test_a_run_whose_disk_fills_up_is_resumed(tmp_path: Path, npy: Path) -> None:
    def data() -> ActivationDataModule:
        return ActivationDataModule(str(npy), batch_size=100)

    def saving() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path / "checkpoints", filename="last", save_on_train_epoch_end=True)

    class Fill(lightning.Callback):
        def on_train_epoch_start(self, trainer: lightning.Trainer, module: Any) -> None:
            if trainer.current_epoch == 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))

    recipe: dict[str, Any] = {"l1_penalty": 0.05, "tol": 0.0}
    whole = fit(data(), tmp_path, **recipe)
    last = tmp_path / "checkpoints" / "last.ckpt"
    with (
        largest_file(resource.RLIM_INFINITY),
        pytest.raises(DiskFullError, match=f"resume with ckpt_path={last}"),
    ):
        fit(data(), tmp_path, Fill(), saving(), **recipe)
    assert names(tmp_path / "checkpoints") == ["last.ckpt"]
    resumed = fit(data(), tmp_path, saving(), ckpt_path=str(last), **recipe)
    assert torch.equal(resumed.dictionary, whole.dictionary)


def test_other_files_are_whole_or_absent_too(tmp_path: Path) -> None:
    from seminmf_lightning.cli.run_directory import write_json

    path = tmp_path / "dictionary.safetensors"
    with largest_file(2000), pytest.raises(DiskFullError, match=r"dictionary\.safetensors does not fit"):
        save_dictionary(path, torch.rand(100, 100), Normalizer(), {}, ())
    with largest_file(2000), pytest.raises(DiskFullError, match=r"metrics\.json does not fit"):
        write_json(tmp_path / "metrics.json", {str(number): number for number in range(1000)})
    assert names(tmp_path) == []
    with pytest.raises(ZeroDivisionError), whole_file(path, "") as partial:
        partial.write_text(f"half {1 / 0}")
    assert names(tmp_path) == []


def test_a_run_that_cannot_log_says_why(script, npy: Path, megabyte: Path) -> None:
    (megabyte / "filler").write_bytes(bytes(2**20 - 100_000))
    done = script(
        "train", "data=npy", f"data.path={npy}", "l1_penalty=0.1", "tol=0", "trainer.max_epochs=400",
        "nb_concepts=8",
        "trainer.log_every_n_steps=1", "~callbacks.checkpoint_epoch", "~callbacks.checkpoint_time",
        "~callbacks.gallery",
        "+trainer.enable_checkpointing=false", f"hydra.run.dir={megabyte}/run", check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "the disk is full" in done.stderr
    assert "make room and resume the run" in done.stderr
