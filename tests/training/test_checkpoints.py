"""Checkpoint files are whole or absent, and run nothing."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from seminmf_lightning import ActivationDataModule, SemiNMFModule
from seminmf_lightning.data import TensorRows
from seminmf_lightning.training.checkpoints import AtomicCheckpointIO, newest_whole


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a short run saves."""
    path = tmp_path_factory.mktemp("checkpoint") / "short.ckpt"
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        plugins=[AtomicCheckpointIO()],
    )  # fmt: skip
    trainer.fit(SemiNMFModule(4), ActivationDataModule(torch.rand(200, 12)))
    trainer.save_checkpoint(path)
    return AtomicCheckpointIO().load_checkpoint(path)


def save(checkpoint: dict, path: Path, step: int) -> None:
    AtomicCheckpointIO().save_checkpoint(checkpoint | {"global_step": step}, path)


def test_the_newest_whole_checkpoint_is_taken(checkpoint: dict, tmp_path: Path) -> None:
    assert newest_whole(tmp_path) is None
    last = tmp_path / "last.ckpt"
    for number in (1, 2):
        save(checkpoint, last, number)
    assert newest_whole(tmp_path) == last
    content = bytearray(last.read_bytes())
    with zipfile.ZipFile(last) as archive:
        largest = max(archive.infolist(), key=lambda part: part.file_size)
        content[content.index(archive.read(largest)) + largest.file_size // 2] ^= 1  # one bit
    last.write_bytes(content)
    with pytest.warns(UserWarning, match=r"last\.ckpt: damaged"):
        found = newest_whole(tmp_path)
    assert found == tmp_path / "last.previous.ckpt"
    assert AtomicCheckpointIO().load_checkpoint(found)["global_step"] == 1
    with pytest.raises(ValueError, match="checksum"):
        AtomicCheckpointIO().load_checkpoint(last)


def test_a_full_disk_leaves_the_previous_checkpoint(
    checkpoint: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = tmp_path / "last.ckpt"
    save(checkpoint, last, 1)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="the disk is full"):
        save(checkpoint, last, 2)
    assert AtomicCheckpointIO().load_checkpoint(last)["global_step"] == 1
    assert not list(tmp_path.glob("*.partial"))


class Payload:
    """Unpickling it runs a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("form", ["torch", "legacy", "pickle", "zip"])
def test_a_malicious_checkpoint_is_refused_and_never_runs(tmp_path: Path, form: str) -> None:
    path, marker = tmp_path / "evil.ckpt", tmp_path / "it_ran"
    content = {"state_dict": {"dictionary": torch.ones(2, 2)}, "payload": Payload(marker)}
    if form in ("torch", "legacy"):
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    elif form == "pickle":
        path.write_bytes(pickle.dumps(content["payload"]))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(content["payload"]))
            archive.writestr("archive/version", "3\n")
    with pytest.raises(ValueError, match=r"evil\.ckpt"):
        AtomicCheckpointIO().load_checkpoint(path)
    if form == "torch":
        trainer = lightning.Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, plugins=[AtomicCheckpointIO()]
        )
        with pytest.raises(ValueError, match="refused"):
            trainer.fit(SemiNMFModule(4), ActivationDataModule(torch.rand(200, 12)), ckpt_path=path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists()  # the payload does work


@pytest.mark.parametrize("penalty", [0.0, 0.1])
@pytest.mark.parametrize("steps", [1, 7, 13])
def test_an_epoch_that_max_steps_ended_is_resumed(
    signed: torch.Tensor, tmp_path: Path, penalty: float, steps: int
) -> None:
    def fit(root: Path, **options: object) -> SemiNMFModule:
        module = SemiNMFModule(6, solver={"name": "hals", "update_every": 1}, l1_penalty=penalty, tol=0)
        # 9 batches per epoch
        data = ActivationDataModule(TensorRows(signed), batch_size=64, val_fraction=0.1)
        saver = ModelCheckpoint(dirpath=root, save_last=True, save_top_k=0)
        resumed = options.pop("ckpt_path", None)
        trainer = lightning.Trainer(
            max_epochs=3, accelerator="cpu", devices=1, logger=False, callbacks=[saver],
            enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False, **options,
        )  # fmt: skip
        trainer.fit(module, data, ckpt_path=resumed, weights_only=True)
        return module

    whole = fit(tmp_path / "whole")
    cut = fit(tmp_path / "cut", max_steps=steps)
    assert (cut.rows_seen < whole.rows_seen) == (penalty > 0 or steps < 9)
    resumed = fit(tmp_path / "cut", ckpt_path=tmp_path / "cut" / "last.ckpt")
    assert resumed.rows_seen == whole.rows_seen
    assert torch.equal(resumed.dictionary, whole.dictionary)
