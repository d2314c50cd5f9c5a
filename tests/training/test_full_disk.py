"""A full disk is named, and leaves the previous files whole."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from fitting import fit
from lightning.pytorch.callbacks import ModelCheckpoint

from seminmf_lightning import ActivationDataModule
from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.dictionary_file import save_dictionary
from seminmf_lightning.io.atomic import DiskFullError, whole_file
from seminmf_lightning.training.checkpoints import AtomicCheckpointIO


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


@pytest.mark.slow
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
