"""Harvested rows are those of a direct forward pass; outputs that cannot be used are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_networks as tiny
import torch
from harvests import CPU, all_rows, image_recipe, job, text_recipe

from seminmf_lightning.harvest import HarvestRecipe


def test_rows_of_a_text_model_are_those_of_a_direct_pass(bert: Path, corpus: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    harvested = all_rows(text_recipe(bert, corpus, layers=["encoder.layer.*", "embeddings"]).harvester(CPU))
    tokenizer, network = AutoTokenizer.from_pretrained(bert), AutoModel.from_pretrained(bert).eval()
    expected: dict[str, list[torch.Tensor]] = {name: [] for name in harvested}
    for line in corpus.read_text().splitlines():  # one window at a time: no padding at all
        ids = tokenizer(json.loads(line)["text"], add_special_tokens=False)["input_ids"]
        for start in range(0, len(ids), 62):
            window = torch.tensor([[2, *ids[start : start + 62], 3]])
            with torch.no_grad():
                states = network(input_ids=window, output_hidden_states=True).hidden_states
            for name, state in zip(("embeddings", "encoder.layer.0", "encoder.layer.1"), states, strict=True):
                expected[name].append(state[0, 1:-1])
    for name, rows in harvested.items():
        assert (rows.values - torch.cat(expected[name])).abs().max() < 1e-6
        assert rows.values.is_contiguous()


def test_a_model_without_padding_or_special_tokens(tmp_path: Path, corpus: Path) -> None:
    pytest.importorskip("transformers")
    from transformers import AutoModel, AutoTokenizer

    folder = tiny.gpt(tmp_path / "gpt")
    rows = all_rows(text_recipe(folder, corpus, layers="h.1").harvester(CPU))["h.1"]
    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    ids = tokenizer(json.loads(corpus.read_text().splitlines()[0])["text"])["input_ids"][:32]
    with torch.no_grad():
        expected = network.h[1](
            network.h[0](network.wte(torch.tensor([ids])) + network.wpe(torch.arange(len(ids))))
        )
    expected = expected[0] if isinstance(expected, tuple) else expected
    assert (rows.values[: len(ids)] - expected.reshape(-1, 16)).abs().max() < 1e-6
    with pytest.raises(ValueError, match=r"not a \[CLS\]"):
        all_rows(text_recipe(folder, corpus, layers="h.1", tokens="cls").harvester(CPU))


def test_short_and_empty_texts_give_the_same_rows_in_any_batch(bert: Path, tmp_path: Path) -> None:
    file = tmp_path / "short.jsonl"
    file.write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in ("a", "", "cat", "a dog ran", "", "mat")) + "\n"
    )
    harvested = [
        all_rows(text_recipe(bert, file, batch_size=size).harvester(CPU))["encoder.layer.1"]
        for size in (1, 4, 64)
    ]
    for rows in harvested:
        assert rows.origin["example"].tolist() == [0, 2, 3, 3, 3, 5]
        assert rows.origin["position"].tolist() == [1, 1, 1, 2, 3, 1]
        assert (rows.values - harvested[0].values).abs().max() < 1e-6
    gpt = tiny.gpt(tmp_path / "gpt")  # no special tokens: a text may be one token, or none
    for size in (1, 4, 64):
        rows = all_rows(text_recipe(gpt, file, layers="h.0", batch_size=size).harvester(CPU))["h.0"]
        assert rows.origin["position"].tolist() == [0, 0, 0, 1, 2, 0]


def test_a_width_that_changes_is_named(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (8, 9)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"layer inner has 216 features for .*b\.png, but had 192 before"):
        all_rows(
            image_recipe(tmp_path, "tiny_networks:doubling", layers="inner", batch_size=1).harvester(CPU)
        )


def test_large_activations_are_refused_in_float16(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32))
    inputs = {"name": "tensors", "path": str(tmp_path / "x.npy")}
    recipe = HarvestRecipe(
        {"name": "callable", "target": "tiny_networks:scaled", "options": {"factor": 1e6}}, inputs, "0"
    )
    with pytest.raises(ValueError, match=r"beyond torch\.float16.*example \d+.*dtype=bfloat16"):
        job(recipe, tmp_path / "store", dtype="float16").run()
    assert job(recipe, tmp_path / "other", dtype="bfloat16").run() is not None


def test_out_of_memory_says_which_batch_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harvester = image_recipe(tiny.pictures(tmp_path / "pictures"), batch_size=6).harvester(CPU)

    def fail(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(harvester.loaded.feed, "call", fail)
    with pytest.raises(MemoryError, match="batch_size=6; try batch_size=3"):
        all_rows(harvester)


class Fails(torch.nn.Module):
    """Raises its own error for inputs above a limit, after its first layer."""

    def __init__(self, error: str) -> None:
        super().__init__()
        self.first, self.second, self.error = torch.nn.Linear(4, 3), torch.nn.Linear(3, 2), error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        import builtins

        y = self.first(x)
        if float(x.max()) > 50:
            raise getattr(builtins, self.error)("out of my range")
        return self.second(y)


@pytest.mark.parametrize("error", ["AssertionError", "KeyError", "ValueError", "NotImplementedError"])
def test_whatever_a_network_raises_names_the_layer_the_example_and_a_remedy(
    error: str, tmp_path: Path
) -> None:
    x = np.random.default_rng(2).standard_normal((30, 4)).astype(np.float32)
    x[17] = 60.0
    np.save(tmp_path / "x.npy", x)
    model = {"name": "callable", "target": f"{__name__}:Fails", "options": {"error": error}}
    inputs = {"name": "tensors", "path": str(tmp_path / "x.npy")}
    recipe = HarvestRecipe(model, inputs, "second", batch_size=1)
    words = rf"before layer second was reached: {error}: .*out of my range.*example 17 .*\(4,\).*list=true"
    with pytest.raises(ValueError, match=words):
        all_rows(recipe.harvester(CPU))
    assert len(all_rows(HarvestRecipe(model, inputs, "first").harvester(CPU))["first"].values) == 30


class Returns(torch.nn.Module):
    """A block whose output is not, or not only, activations."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.block, self.head = Block(form), torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.block(x)
        return self.head(x)


class Block(torch.nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: torch.Tensor) -> Any:
        attention = torch.rand(len(x), 2, 3, 3)
        forms = {
            "complex": torch.fft.fft(x), "boolean": x > 0, "integer": x.round().long(),
            "attention first": {"attentions": attention, "hidden": x},
            "mask first": {"attn_mask": x * 0 + 1, "out": x},
            "loss first": {"loss": torch.zeros(()), "hidden": x},
            "ids first": (x.argmax(dim=1), x), "none first": (None, x),
        }  # fmt: skip
        return forms[self.form]


@pytest.mark.parametrize("form", ["complex", "boolean", "integer"])
def test_outputs_that_are_not_activations_are_refused_by_name(form: str, tmp_path: Path) -> None:
    words = {"complex": "torch.complex64", "boolean": "torch.bool", "integer": "torch.int64"}[form]
    with pytest.raises(ValueError, match=rf"layer block returns numbers of type {words}, not activations"):
        returned(form, tmp_path)


@pytest.mark.parametrize("form", ["attention first", "mask first", "loss first", "ids first", "none first"])
def test_masks_losses_and_attention_are_passed_over(form: str, tmp_path: Path) -> None:
    values = returned(form, tmp_path)
    assert torch.equal(values, torch.from_numpy(np.load(tmp_path / "x.npy")))


def returned(form: str, folder: Path) -> torch.Tensor:
    np.save(folder / "x.npy", np.random.default_rng(6).standard_normal((6, 4)).astype(np.float32))
    model = {"name": "callable", "target": f"{__name__}:Returns", "options": {"form": form}}
    recipe = HarvestRecipe(model, {"name": "tensors", "path": str(folder / "x.npy")}, "block")
    return all_rows(recipe.harvester(CPU))["block"].values
