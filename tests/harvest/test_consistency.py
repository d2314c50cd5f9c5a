"""Networks whose rows depend on chance or on their batch are refused, unless that is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_networks as tiny
import torch
from harvests import CPU, all_rows, text_recipe
from torch import nn

from seminmf_lightning.harvest import HarvestRecipe


class Noisy(nn.Module):
    def __init__(self, share: float) -> None:
        super().__init__()
        self.inner, self.share = nn.Linear(6, 5), share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(nn.functional.dropout(x, self.share, training=True))


class OverTheBatch(nn.Module):
    """Normalises over its batch even in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner((x - x.mean(dim=0)) / (x.std(dim=0, correction=0) + 0.1))


class Leaking(nn.Module):
    """Mixes a token with the mean of all positions, padding included."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.inner = nn.Embedding(40, 6), nn.Linear(6, 6)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x = self.embed(input_ids)
        return self.inner(x + 0.3 * x.mean(dim=1, keepdim=True))


def leaking(tokenizer: str) -> tuple[nn.Module, Any]:
    from transformers import AutoTokenizer

    return Leaking(), AutoTokenizer.from_pretrained(tokenizer)


def recipe(folder: Path, target: str, **options: Any) -> HarvestRecipe:
    np.save(folder / "x.npy", np.random.default_rng(3).standard_normal((9, 6)).astype(np.float32))
    model = {"name": "callable", "target": f"{__name__}:{target}", "options": options.pop("options", {})}
    return HarvestRecipe(model, {"name": "tensors", "path": str(folder / "x.npy")}, "inner", **options)


@pytest.mark.parametrize("share", [0.1, 0.7])
def test_a_network_that_is_random_in_evaluation_mode(share: float, tmp_path: Path) -> None:
    options = {"options": {"share": share}, "batch_size": 4}
    with pytest.raises(
        ValueError, match=r"layer inner gives other rows each time .*example \d.*check_rows=false"
    ):
        all_rows(recipe(tmp_path, "Noisy", **options).harvester(CPU))
    assert all_rows(recipe(tmp_path, "Noisy", check_rows=False, **options).harvester(CPU))


def test_a_network_that_normalises_over_its_batch(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"layer inner gives other rows .* alone than in a batch.*batch_size=1"
    ):
        all_rows(recipe(tmp_path, "OverTheBatch", batch_size=4).harvester(CPU))
    assert all_rows(recipe(tmp_path, "OverTheBatch", batch_size=1).harvester(CPU))


@pytest.mark.parametrize(
    "texts", [["a cat sat on the mat", "dog ran"], ["a cat sat"], ["the dog ran", "a cat sat"]]
)
def test_a_network_that_lets_padding_in(texts: list[str], tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    file = tmp_path / "t.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    options = {"tokenizer": str(tiny.bert(tmp_path / "b"))}
    model = {"name": "callable", "target": f"{__name__}:leaking", "options": options}
    settings = HarvestRecipe(model, {"name": "text", "path": str(file)}, "inner", batch_size=3)
    with pytest.raises(ValueError, match=r"layer inner gives other rows.*ignores the attention mask"):
        all_rows(settings.harvester(CPU))


def test_ordinary_networks_pass_in_half_precision(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    file = tmp_path / "t.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in tiny.texts(6, seed=5)))
    settings = text_recipe(tiny.bert(tmp_path / "bert"), file)
    model = {"name": "transformers", "path": str(tmp_path / "bert"), "precision": "bfloat16"}
    half = HarvestRecipe(model, settings.inputs, settings.layers, batch_size=3)
    assert all_rows(half.harvester(CPU))


class TimeFirst(nn.Module):
    """Returns (tokens, items, c), as XLNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.router = nn.Embedding(100, 5), nn.Identity()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        self.router(self.inner(input_ids.T).flatten(0, 1))
        return self.router(input_ids)


@pytest.mark.parametrize("words", [4, 6])
def test_time_first_is_refused_even_where_the_batch_is_square(tmp_path: Path, words: int) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": " ".join(["the"] * words)}) + "\n" for _ in range(6)))
    recipe = text_recipe(tiny.gpt(tmp_path / "model"), corpus, batch_size=6)
    recipe.loaded = recipe.loaded._replace(network=TimeFirst())
    for layer, message in (("inner", "is the tokens, and the second one the items"),
                           ("router", "holds the tokens of all items")):  # fmt: skip
        recipe.layers = layer
        with pytest.raises(ValueError, match=message):
            all_rows(recipe.harvester(CPU))
