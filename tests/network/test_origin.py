"""A dictionary knows the network that it was learned from, and is attached to no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seminmf_lightning import ActivationDataModule, SemiNMF, SemiNMFModule, attach
from seminmf_lightning.data import HarvestedRows
from seminmf_lightning.data.network import network_of
from seminmf_lightning.dictionary_file import load_dictionary, save_dictionary

tiny = pytest.importorskip("tiny_networks")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2, a harvest of it and a run on the harvest, trained by Lightning."""
    from harvests import job, text_recipe
    from lightning import Trainer

    from seminmf_lightning.training.callbacks.save_dictionary import SaveDictionary

    folder = tmp_path_factory.mktemp("origin")
    tiny.gpt(folder / "gpt2")
    (folder / "corpus").mkdir()
    for number, text in enumerate(tiny.texts(20)):
        (folder / "corpus" / f"{number}.txt").write_text(text)
    assert job(text_recipe(folder / "gpt2", folder / "corpus", layers="h.0"), folder / "store").run()
    file = folder / "run" / "dictionary.safetensors"
    trainer = Trainer(
        max_epochs=1, logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, callbacks=[SaveDictionary(str(file))],
    )  # fmt: skip
    data = ActivationDataModule(HarvestedRows(str(folder / "store")))
    trainer.fit(SemiNMFModule(nb_concepts=8, l1_penalty=0.1), data)
    return folder


def test_training_saves_the_model_and_the_layer_of_the_harvest(home: Path) -> None:
    network = load_dictionary(home / "run").config["network"]
    manifest = json.loads((home / "store" / "manifest.json").read_text())
    assert network == {"model": manifest["settings"]["model"], "layer": "h.0"}
    assert SemiNMF.load(home / "run").network == network
    assert network_of(ActivationDataModule(HarvestedRows(str(home / "gone")))) is None
    np.save(home / "rows.npy", np.zeros((4, 2), dtype=np.float32))
    assert network_of(ActivationDataModule(str(home / "rows.npy"))) is None


def test_it_attaches_to_the_same_weights_alone_or_below_a_head(home: Path) -> None:
    model = transformers.AutoModel.from_pretrained(home / "gpt2").eval()
    head = transformers.GPT2LMHeadModel.from_pretrained(home / "gpt2").eval()
    ids = torch.tensor([[1, 2, 3]])
    codes = []
    for network, layer in ((model, "h.0"), (head, "transformer.h.0"), (head.double(), "transformer.h.0")):
        with attach(network, layer, home / "run") as concepts:
            network(ids)
        codes.append(concepts.codes.float())
    torch.testing.assert_close(codes[0], codes[1])
    torch.testing.assert_close(codes[0], codes[2])


def test_another_layer_model_or_weights_need_force(home: Path) -> None:
    model = transformers.AutoModel.from_pretrained(home / "gpt2").eval()
    other = transformers.GPT2Model(model.config).eval()
    bert = transformers.AutoModel.from_pretrained(tiny.bert(home / "bert"))
    cases: list[tuple[Any, str, str]] = [
        (model, "h.1", r"learned from layer h\.0, not h\.1; force=True"),
        (other, "h.0", r"this GPT2Model has other weights .*/gpt2 had when .*; force=True"),
        (bert, "encoder.layer.0", r"learned from a GPT2Model .*this model is a BertModel .*; force=True"),
    ]
    for network, layer, message in cases:
        with pytest.raises(ValueError, match=message):
            attach(network, layer, home / "run")
        with attach(network, layer, home / "run", force=True) as concepts:
            network(torch.tensor([[1, 2, 3]]))
        assert concepts.codes.shape == (1, 3, 8)


def test_a_dictionary_fitted_anew_and_one_without_a_record_have_no_network(
    home: Path, tmp_path: Path
) -> None:
    model = SemiNMF.load(home / "run")
    assert model.network is not None
    model.fit(torch.rand(50, 16), max_iter=1)
    assert model.network is None
    model.save(tmp_path / "new.safetensors")
    assert SemiNMF.load(tmp_path / "new.safetensors").network is None


def test_a_file_with_a_damaged_record_is_refused(home: Path, tmp_path: Path) -> None:
    saved, file = load_dictionary(home / "run"), tmp_path / "bad.safetensors"
    save_dictionary(file, saved.D, saved.normalizer, saved.config | {"network": {"layer": "h.0"}}, ())
    with pytest.raises(ValueError, match=r"bad\.safetensors: config\.network: no 'model'"):
        load_dictionary(file)


def test_a_saved_model_keeps_the_network_without_its_path(home: Path, tmp_path: Path) -> None:
    SemiNMF.load(home / "run").save(tmp_path / "mine.safetensors")
    assert str(home).encode() not in (tmp_path / "mine.safetensors").read_bytes()
    again = SemiNMF.load(tmp_path / "mine.safetensors")
    again.save(tmp_path / "again.safetensors")
    assert SemiNMF.load(tmp_path / "again.safetensors").network == again.network
    model = transformers.AutoModel.from_pretrained(home / "gpt2").eval()
    with attach(model, "h.0", tmp_path / "mine.safetensors") as concepts:
        model(torch.tensor([[1, 2, 3]]))
    assert concepts.codes.shape == (1, 3, 8)
    with pytest.raises(ValueError, match=r"other weights .* than gpt2 had when"):
        attach(transformers.GPT2Model(model.config).eval(), "h.0", again)
    with pytest.raises(ValueError, match=r"learned from layer h\.0, not h\.1"):
        attach(model, "h.1", again)
