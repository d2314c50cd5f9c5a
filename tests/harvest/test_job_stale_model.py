"""A store is not resumed with another tokenizer, configuration, preprocessing or option of equal weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_networks as tiny
import torch
from harvests import job, needs, text_recipe
from torch import nn

from seminmf_lightning.harvest import HarvestRecipe
from seminmf_lightning.harvest.store import StoreError


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def swap_words(tokenizer: Any) -> None:
    words = tokenizer["model"]["vocab"]
    words["cat"], words["dog"] = words["dog"], words["cat"]


@pytest.mark.parametrize(
    ("file", "change", "key"),
    [
        ("tokenizer.json", swap_words, "model.preprocessing.digest"),
        ("config.json", lambda config: config.update(num_attention_heads=4), "model.config"),
    ],
)
def test_an_edited_text_model_is_noticed(
    tmp_path: Path, file: str, change: Callable[[Any], None], key: str
) -> None:
    model, corpus = tiny.bert(tmp_path / "model"), tmp_path / "corpus.jsonl"
    corpus.write_text('{"text": "the cat sat"}\n{"text": "a dog ran"}\n')
    assert job(text_recipe(model, corpus), tmp_path / "store").run() is not None
    assert job(text_recipe(model, corpus), tmp_path / "store").run() is not None
    edit(model / file, change)
    with pytest.raises(StoreError, match=f"differs in {key}"):
        job(text_recipe(model, corpus), tmp_path / "store").run()


def test_an_edited_image_processor_is_noticed(tmp_path: Path) -> None:
    needs("transformers")
    import transformers

    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=32,
        patch_size=8,
    )  # fmt: skip
    transformers.ViTModel(config).save_pretrained(tmp_path / "model")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "model")
    tiny.pictures(tmp_path / "pictures", 2)

    def recipe() -> HarvestRecipe:
        return HarvestRecipe(
            {"name": "transformers", "path": str(tmp_path / "model")},
            {"name": "images", "path": str(tmp_path / "pictures")},
            "layers.0",
        )

    assert job(recipe(), tmp_path / "store").run() is not None
    edit(tmp_path / "model" / "preprocessor_config.json", lambda one: one.update(image_mean=[0.1, 0.1, 0.1]))
    with pytest.raises(StoreError, match=r"image_mean: \[0\.5, 0\.5, 0\.5\] there, \[0\.1"):
        job(recipe(), tmp_path / "store").run()


def activation(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), {"relu": nn.ReLU(), "tanh": nn.Tanh()}[kind])


def test_other_options_of_a_function_are_noticed(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32))

    def recipe(kind: str) -> HarvestRecipe:
        model = {"name": "callable", "target": f"{__name__}:activation", "options": {"kind": kind}}
        return HarvestRecipe(model, {"name": "tensors", "path": str(tmp_path / "x.npy")}, "1")

    assert job(recipe("relu"), tmp_path / "store").run() is not None
    with pytest.raises(StoreError, match=r"model\.options\.kind: 'relu' there, 'tanh' here"):
        job(recipe("tanh"), tmp_path / "store").run()
