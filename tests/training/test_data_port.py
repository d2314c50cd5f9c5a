"""Loaders of other kinds than ours: used right, or refused with the cure."""

from __future__ import annotations

from typing import Any

import lightning
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from seminmf_lightning import SemiNMFModule


def trainer(**options: Any) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, **{"max_epochs": 2} | options,
    )  # fmt: skip


def loader(*batches: Any) -> DataLoader[Any]:
    return DataLoader(list(batches), batch_size=None)


@pytest.mark.parametrize("penalty", [0.0, 0.1])
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda A: None, r"no data: give the trainer a data module or a DataLoader"),
        (lambda A: [A[:50], A[50:]], r"got a list: .*DataLoader\(batches, batch_size=None\)"),
        (lambda A: A, r"got a Tensor: give ActivationDataModule"),
        (lambda A: {"a": loader(A), "b": loader(A)}, "got a dict"),
        (lambda A: loader(A[:50], A[50:, :5]), "rows of 5 features, expected 24"),
        (lambda A: loader(A.repeat(40, 1), A[:, :5]), "rows of 5 features, expected 24"),
        (lambda A: loader(A.to(torch.complex64)), "must hold real numbers"),
        (lambda A: loader(A.to_sparse()), "must be a dense tensor"),
        (lambda A: loader(A, torch.where(A > 2, torch.nan, A)), r"row \d+ of the batch holds NaN or Inf"),
        (lambda A: loader(A[:0], A[:0]), "more than the 0 training rows"),
        (lambda A: loader(A[:3]), "nb_concepts=4 is more than the 3 training rows"),
    ],
)
def test_loaders_that_cannot_be_used_are_refused(
    signed: Tensor, penalty: float, make: Any, error: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        trainer().fit(SemiNMFModule(4, l1_penalty=penalty), make(signed))


def test_batches_of_another_width_in_validation(signed: Tensor) -> None:
    module = SemiNMFModule(4)
    trainer().fit(module, loader(signed))
    with pytest.raises(ValueError, match="rows of 5 features, expected 24"):
        trainer().validate(module, loader(signed, signed[:, :5]), verbose=False)


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_a_fit_without_an_epoch_left_is_refused_and_keeps_the_dictionary(
    signed: Tensor, penalty: float
) -> None:
    module, run = SemiNMFModule(4, l1_penalty=penalty), trainer(max_epochs=1)
    run.fit(module, loader(signed))
    D = module.dictionary.detach().clone()
    with pytest.raises(ValueError, match=r"max_epochs=1 leaves nothing to train on: .*make a new Trainer"):
        run.fit(module, loader(signed))
    assert torch.equal(module.dictionary, D) and module.rows_seen == len(signed)
    for limit in ({"max_epochs": 0}, {"max_steps": 0}):
        with pytest.raises(ValueError, match=r"=0 leaves nothing to train on: give a larger one"):
            trainer(**limit).fit(module, loader(signed))
    assert torch.equal(module.dictionary, D)


def test_codes_without_a_dictionary_are_refused(signed: Tensor) -> None:
    for use in (trainer().predict, trainer().validate):
        with pytest.raises(RuntimeError, match=r"no dictionary yet: call trainer\.fit"):
            use(SemiNMFModule(4), loader(signed))
