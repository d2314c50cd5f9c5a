"""Training by hand, without the commands: fitted twice, cut anywhere, resumed, from any loader."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from commands import ROOT
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from seminmf_lightning import ActivationDataModule, SemiNMFModule
from seminmf_lightning.training.preemption import Preempted, TimedCheckpoint

EXACT = {"solver": {"name": "hals", "update_every": 1, "max_iter": 37}, "tol": 0.0}
SOLVING = ROOT / "tests" / "files" / "saved_by_0.1.0" / "solving"


def trainer(*callbacks: lightning.Callback, **options: Any) -> lightning.Trainer:
    saving = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    return lightning.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, enable_checkpointing=saving, callbacks=list(callbacks),
        **{"max_epochs": 3, "use_distributed_sampler": False} | options,
    )  # fmt: skip


def last(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(dirpath=folder, save_last=True, save_top_k=0)


def loss(module: SemiNMFModule, A: Tensor) -> float:
    return float((A - module.decode(module.eval().encode(A))).square().mean())


# --- solver steps after the data


def own(signed: Tensor, rows: int = 64) -> ActivationDataModule:
    return ActivationDataModule(signed, batch_size=rows, val_fraction=0.1)


def foreign(signed: Tensor, rows: int = 64) -> DataLoader:
    return DataLoader(TensorDataset(signed[:540]), rows)


@pytest.mark.parametrize("data", [own, foreign])
@pytest.mark.parametrize(
    ("rows", "steps"), [(64, 9), (64, 10), (64, 19), (64, 23), (64, 45), (600, 1), (600, 5), (600, 31)]
)
def test_a_run_that_max_steps_ended_between_solver_steps_resumes_there(
    signed: Tensor, tmp_path: Path, data: Any, rows: int, steps: int
) -> None:
    def fit(resumed: Path | None = None, **options: Any) -> SemiNMFModule:
        module = SemiNMFModule(6, **EXACT)
        run = trainer(last(tmp_path), **options)
        run.fit(module, data(signed, rows), ckpt_path=resumed, weights_only=True)
        assert "max_steps" not in options or run.global_step == options["max_steps"]
        return module

    whole = fit()
    cut = fit(max_steps=steps)
    assert not torch.equal(cut.dictionary, whole.dictionary)
    resumed = fit(tmp_path / "last.ckpt")
    assert resumed.rows_seen == whole.rows_seen == 540
    assert torch.equal(resumed.dictionary, whole.dictionary)


class TellAt(lightning.Callback):
    """Signals this process after so many solver steps."""

    def __init__(self, done: int) -> None:
        self.done = done

    def on_solver_steps(self, trainer: lightning.Trainer, done: int, limit: int) -> None:
        if done == self.done:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("done", [10, 30])
def test_a_signal_between_solver_steps_saves_and_ends_the_run(
    signed: Tensor, tmp_path: Path, done: int
) -> None:
    path, whole = tmp_path / "last.ckpt", SemiNMFModule(6, **EXACT)
    trainer().fit(whole, own(signed))
    with pytest.raises(Preempted) as ended:
        trainer(TellAt(done), TimedCheckpoint(str(path), seconds=60)).fit(
            SemiNMFModule(6, **EXACT), own(signed)
        )
    assert ended.value.code == 128 + signal.SIGTERM
    assert torch.load(path, weights_only=True)["solver_steps"] == done
    for _ in range(2):  # a checkpoint is no worse for having been resumed
        module = SemiNMFModule(6, **EXACT)
        trainer(TimedCheckpoint(str(tmp_path / "next.ckpt"), seconds=1e-9)).fit(
            module, own(signed), ckpt_path=path, weights_only=True
        )
        assert torch.equal(module.dictionary, whole.dictionary)
        path = tmp_path / "next.ckpt"  # of the last solver steps


def test_max_time_ends_solver_steps_and_the_run_resumes(signed: Tensor, tmp_path: Path) -> None:
    recipe = {"solver": {"name": "hals", "max_iter": 10**6}, "tol": 0.0}
    module = SemiNMFModule(6, **recipe)
    trainer(last(tmp_path), max_time=timedelta(seconds=1)).fit(module, own(signed))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert 0 < saved["solver_steps"] < 10**6
    again = SemiNMFModule(6, **recipe)
    run = trainer(max_steps=saved["global_step"] + 7)
    run.fit(again, own(signed), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert run.global_step == saved["global_step"] + 7


def test_a_checkpoint_that_0_1_0_wrote_between_solver_steps_resumes_there() -> None:
    rows = torch.from_numpy(np.load(SOLVING.parent / "rows.npy")).float()
    module = SemiNMFModule(4, solver={"name": "hals", "max_iter": 40, "update_every": 1}, tol=0, seed=3)
    data = ActivationDataModule(rows, batch_size=100, val_fraction=0.1)
    trainer().fit(module, data, ckpt_path=SOLVING / "last.ckpt", weights_only=True)
    assert module.rows_seen == 180
    assert (module.dictionary - torch.from_numpy(np.load(SOLVING / "dictionary.npy"))).abs().max() < 1e-6


@pytest.mark.parametrize("run", ["sparse", "dense", "omp"])
def test_checkpoints_of_0_1_0_load_and_encode_as_their_dictionaries_do(run: str) -> None:
    folder = SOLVING.parent / run
    module = SemiNMFModule.load_from_checkpoint(folder / "last.ckpt").eval()
    rows = torch.from_numpy(np.load(SOLVING.parent / "rows.npy"))
    codes = torch.from_numpy(np.load(folder / "codes.npy"))
    assert (module.encode(rows)[: len(codes)] - codes).abs().max() < 1e-4


# --- fitted twice


@pytest.mark.parametrize("recipe", [{}, {"l1_penalty": 0.05}, {"target_l0": 3}], ids=str)
@pytest.mark.parametrize("loader", [own, foreign])
def test_a_second_fit_is_that_of_a_new_module(signed: Tensor, recipe: dict[str, Any], loader: Any) -> None:
    other = signed.flip(0) @ torch.rand(24, 24, generator=torch.Generator().manual_seed(1))
    module, new = SemiNMFModule(6, **recipe), SemiNMFModule(6, **recipe)
    trainer().fit(module, loader(signed))
    trainer().fit(module, loader(other))
    trainer().fit(new, loader(other))
    assert torch.equal(module.dictionary, new.dictionary)
    assert module.rows_seen == new.rows_seen
    assert loss(module, other) == loss(new, other)


def test_a_fit_after_loading_starts_again_and_with_ckpt_path_resumes(signed: Tensor, tmp_path: Path) -> None:
    recipe = {"l1_penalty": 0.05, "tol": 0.0}
    module = SemiNMFModule(6, **recipe)
    run = trainer(last(tmp_path), max_epochs=2)
    run.fit(module, own(signed))
    loaded = SemiNMFModule.load_from_checkpoint(tmp_path / "last.ckpt")
    assert torch.equal(loaded.dictionary, module.dictionary)
    trainer(max_epochs=2).fit(loaded, own(signed))
    assert torch.equal(loaded.dictionary, module.dictionary) and loaded.rows_seen == module.rows_seen
    trainer(max_epochs=3).fit(loaded, own(signed), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    whole = SemiNMFModule(6, **recipe)
    trainer(max_epochs=3).fit(whole, own(signed))
    assert torch.equal(loaded.dictionary, whole.dictionary) and loaded.rows_seen == 3 * 540


def test_data_of_another_width_is_refused_and_spares_the_dictionary(signed: Tensor) -> None:
    module = SemiNMFModule(6)
    trainer().fit(module, own(signed))
    before = loss(module, signed)
    for loader in (own, foreign):
        with pytest.raises(
            ValueError, match="the dictionary has 24 features, the data has 9; make a new module"
        ):
            trainer().fit(module, loader(signed[:, :9]))
    assert loss(module, signed) == before


# --- loaders of other kinds


class Once(IterableDataset):
    """Batches that are gone once they were given."""

    def __init__(self, batches: Any) -> None:
        self.batches = iter(batches)

    def __iter__(self) -> Iterator[Tensor]:
        return self.batches


class Again(IterableDataset):
    """Batches without a length, from the start each time; of several workers each gives its part."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Tensor]:
        info = torch.utils.data.get_worker_info()
        batches = self.rows.split(50)
        return iter(batches if info is None else batches[info.id :: info.num_workers])


KINDS: dict[str, Any] = {
    "once": lambda A: DataLoader(Once(A.split(50)), batch_size=None),
    "generator": lambda A: (batch for batch in A.split(50)),
    "again": lambda A: DataLoader(Again(A), batch_size=None),
    "workers": lambda A: DataLoader(Again(A), batch_size=None, num_workers=2),
    "map": lambda A: DataLoader(TensorDataset(A), 50),
}


@pytest.mark.parametrize("penalty", [0.0, 0.05])
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("limit", [None, 12])
def test_every_row_given_is_seen_once_per_epoch(
    signed: Tensor, kind: str, penalty: float, limit: int | None
) -> None:
    module = SemiNMFModule(4, l1_penalty=penalty, tol=0)
    trainer(max_epochs=1, limit_train_batches=limit).fit(module, KINDS[kind](signed))
    assert module.rows_seen == 600
    same = SemiNMFModule(4, l1_penalty=penalty, tol=0)
    trainer(max_epochs=1).fit(same, KINDS["map"](signed))
    assert loss(module, signed) == pytest.approx(loss(same, signed), rel=0.05)


@pytest.mark.parametrize("kind", ["once", "generator"])
def test_a_second_epoch_of_rows_that_are_gone_is_an_error(signed: Tensor, kind: str) -> None:
    module = SemiNMFModule(4, l1_penalty=0.05, tol=0)
    with pytest.raises(ValueError, match=r"gives no batch in epoch 2: .*only once.*trainer\.max_epochs=1"):
        trainer(max_epochs=2).fit(module, KINDS[kind](signed))
    with pytest.raises(ValueError, match="gives no batch"):
        trainer().fit(SemiNMFModule(4), DataLoader(Once([]), batch_size=None))


def test_loaders_that_restart_have_as_many_epochs_as_asked(signed: Tensor) -> None:
    for kind in ("again", "workers", "map"):
        module = SemiNMFModule(4, l1_penalty=0.05, tol=0)
        trainer(max_epochs=2).fit(module, KINDS[kind](signed))
        assert module.rows_seen == 1200, kind


def test_codes_of_a_loader_that_can_be_walked_once(signed: Tensor) -> None:
    module = SemiNMFModule(4)
    trainer().fit(module, own(signed))
    codes = trainer().predict(module, KINDS["once"](signed))
    assert codes is not None and torch.equal(torch.cat(codes), module.eval().encode(signed))
    trainer().validate(module, KINDS["generator"](signed), verbose=False)
    assert module.metrics["reconstruction_loss"] == pytest.approx(loss(module, signed), rel=1e-4)


# --- settings of the trainer


@pytest.mark.parametrize("penalty", [0.0, 0.1])
@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_precisions_that_would_train_wrongly_are_refused(
    signed: Tensor, precision: Any, penalty: float
) -> None:
    with pytest.raises(ValueError, match=rf"trainer\.precision={precision} .*32-true or bf16-mixed"):
        trainer(precision=precision).fit(SemiNMFModule(4, l1_penalty=penalty), own(signed))


@pytest.mark.parametrize("loader", [own, foreign])
def test_a_share_of_the_batches(signed: Tensor, loader: Any) -> None:
    module = SemiNMFModule(4, l1_penalty=0.05, tol=0)
    trainer(max_epochs=2, limit_train_batches=0.5).fit(module, loader(signed))
    assert module.rows_seen == 2 * 4 * 64
    with pytest.raises(ValueError, match=r"trainer\.limit_train_batches=0 leaves nothing"):
        trainer(limit_train_batches=0).fit(module, loader(signed))


def test_without_validation_there_are_no_metrics_but_a_dictionary(signed: Tensor) -> None:
    module = SemiNMFModule(4)
    trainer(limit_val_batches=0).fit(module, own(signed))
    assert module.metrics == {} and loss(module, signed) < float(signed.square().mean())
