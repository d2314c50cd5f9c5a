"""``seminmf concepts`` and ``seminmf steer`` on small networks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks_with_runs import TEXT, WIDTH, K, home, language_model, origin, run, run_of, tiny, transformers

from seminmf_lightning import SemiNMF, attach
from seminmf_lightning.io.labels import digest_of

__all__ = ["home"]  # a fixture


@pytest.mark.parametrize(("name", "layer"), [("llama", "model.layers.0"), ("gpt2", "transformer.h.0")])
def test_tokens_have_the_codes_of_the_attached_dictionary(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, layer: str
) -> None:
    file = tmp_path / "concepts.json"
    result = run("concepts", home / f"of_{name}", f"text='{TEXT}'", "top=3", f"output={file}", "lens=true")
    model = language_model(home, name)
    ids = transformers.AutoTokenizer.from_pretrained(home / name)(TEXT, return_tensors="pt")["input_ids"]
    with attach(model, layer, home / f"of_{name}") as inside, torch.no_grad():
        model(ids)
    (example,) = result["examples"]
    assert [token["token"] for token in example["tokens"]] == ["the", "cat", ",", "sat", "on"]
    for token, Z in zip(example["tokens"], inside.codes[0], strict=True):
        expected = Z.abs().argsort(descending=True, stable=True)[:3]
        expected = expected[Z[expected] != 0]
        assert [one["concept"] for one in token["concepts"]] == expected.tolist()
        codes = torch.tensor([one["code"] for one in token["concepts"]])
        torch.testing.assert_close(codes, Z[expected], atol=1e-5, rtol=1e-4)
    assert result["layer"] == layer
    assert json.loads(file.read_text()) == result
    digest, lens = json.loads((home / f"of_{name}" / "logit_lens.json").read_text()).values()
    assert digest == digest_of(SemiNMF.load(home / f"of_{name}").get_dictionary())
    assert list(lens) == [str(one) for one in range(K)]
    for concept, found in result["concepts"].items():
        assert found["promotes"] == lens[concept]["promotes"]
        assert len(found["promotes"]) == len(found["suppresses"]) == 10
        assert set(found["promotes"]) <= {"?", *tiny.WORDS}
    shown = capsys.readouterr().out
    first = example["tokens"][1]["concepts"][0]
    assert f"  cat  {first['concept']} ({first['code']:+.3g})" in shown
    assert "promotes: " in shown


def test_an_encoder_without_a_head_is_read_without_a_lens(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run("concepts", home / "of_bert", f"text='{TEXT}'")
    assert all(set(one) == {"label"} for one in result["concepts"].values())
    assert "promotes: not known, BertModel has no head" in capsys.readouterr().out
    with pytest.raises(ValueError, match="lens=true: BertModel has no head"):
        run("concepts", home / "of_bert", f"text='{TEXT}'", "lens=true")


def test_images_name_the_patch_and_the_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("PIL")
    tiny.pictures(tmp_path / "images", 2)
    config = transformers.ViTConfig(
        hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=24,
        patch_size=8, id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1},
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    transformers.ViTImageProcessor(size={"height": 24, "width": 24}).save_pretrained(tmp_path / "vit")
    folder = run_of(tmp_path / "run", origin(tmp_path / "vit", "layers.0", "image"))
    image = next((tmp_path / "images").iterdir())
    result = run("concepts", folder, f"image={image}", "output=" + str(tmp_path / "c.json"))
    (example,) = result["examples"]
    assert [token["token"] for token in example["tokens"]] == [
        f"row {y}, column {x}" for y in range(3) for x in range(3)
    ]
    shown = capsys.readouterr().out
    assert "at row " in shown and "promotes: " in shown
    assert all(set(one["promotes"]) == {"cat", "dog"} for one in result["concepts"].values())
    with pytest.raises(ValueError, match=r"ViTModel \(.*vit\) cannot generate text: .*attach\(model"):
        run("steer", folder, "concept=1", "strength=4", "prompt=the")


def test_files_are_read_and_what_cannot_be_is_said(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text(" ".join(tiny.WORDS * 4))  # three windows
    (tmp_path / "texts" / "b.txt").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "texts" / "c.txt").write_text("the \x1b[2J cat")
    (tmp_path / "texts" / "d.txt").write_text("")
    result = run("concepts", home / "of_llama", "+inputs.name=text", f"+inputs.path={tmp_path / 'texts'}",
                 f"output={tmp_path / 'c.json'}")  # fmt: skip
    assert [len(one["tokens"]) for one in result["examples"]] == [4 * len(tiny.WORDS), 4]
    shown = capsys.readouterr().out
    assert "skipped" in shown and "b.txt: not text" in shown
    assert "\x1b" not in shown


def kl_by_hand(model: Any, layer: str, folder: Path, concept: int, strength: float, ids: Any) -> float:
    dictionary = SemiNMF.load(folder)
    shift = strength * dictionary.normalizer.scale * dictionary.get_dictionary()[concept]

    def moved(module: Any, args: Any, output: Any) -> Any:
        return (output[0] + shift, *output[1:]) if isinstance(output, tuple) else output + shift

    with torch.no_grad():
        p = model(ids).logits[0, -1].log_softmax(-1)
        with model.get_submodule(layer).register_forward_hook(moved):
            q = model(ids).logits[0, -1].log_softmax(-1)
    return float((p.exp() * (p - q)).sum())


@pytest.mark.parametrize(("name", "layer"), [("llama", "model.layers.0"), ("gpt2", "transformer.h.0")])
def test_steering_is_a_shift_by_hand(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, layer: str
) -> None:
    file, folder = tmp_path / "steer.json", home / f"of_{name}"
    result = run("steer", folder, "concept=5", "strength=[3,-6]", "prompt='the cat'", "max_tokens=8",
                 f"output={file}")  # fmt: skip
    assert json.loads(file.read_text()) == result
    model = language_model(home, name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(home / name)
    ids = tokenizer("the cat", return_tensors="pt")["input_ids"]
    untouched, *others = result["written"]
    greedy = ids
    for _ in range(8):  # without a cache
        with torch.no_grad():
            greedy = torch.cat([greedy, model(greedy).logits[:, -1:].argmax(dim=-1)], dim=1)
        if name == "gpt2" and greedy[0, -1] == 0:
            break
    assert untouched["kl"] == 0
    assert untouched["text"] == tokenizer.decode(greedy[0, 2:], skip_special_tokens=True)
    logp = model(greedy).logits[0].log_softmax(-1)
    losses = [-float(logp[at - 1, greedy[0, at]].detach()) for at in range(2, greedy.shape[1])]
    assert untouched["perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
    for line in others:
        expected = kl_by_hand(model, layer, folder, 5, line["strength"], ids)
        assert line["kl"] == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert [line["strength"] for line in others] == [3, -6]
    shown = capsys.readouterr().out
    assert "strength -6, KL " in shown and "untouched, perplexity " in shown and "suppresses: " in shown


def test_samples_are_those_of_the_seed(home: Path) -> None:
    def sampled(seed: int) -> list[str]:
        settings = ("concept=5", "strength=3", "prompt='the cat'", "max_tokens=12", "sample=true")
        return [one["text"] for one in run("steer", home / "of_llama", *settings, f"seed={seed}")["written"]]

    assert sampled(1) == sampled(1) != sampled(2)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision(home: Path, tmp_path: Path, precision: str) -> None:
    folder = run_of(tmp_path, origin(home / "llama", "layers.0", precision=precision))
    result = run("steer", folder, "concept=5", "strength=6", "prompt='the cat'", "max_tokens=4")
    full = run("steer", home / "of_llama", "concept=5", "strength=6", "prompt='the cat'", "max_tokens=4")
    assert 0 < result["written"][1]["kl"] < 10
    assert math.isfinite(result["written"][1]["perplexity"])
    assert full["layer"] == result["layer"]
    read = run("concepts", folder, f"text='{TEXT}'")
    assert read["concepts"] and all(one["promotes"] for one in read["concepts"].values())
