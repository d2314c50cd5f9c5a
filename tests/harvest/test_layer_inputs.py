"""``name:input`` harvests what a module is given, with the same origin of each row as its output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_networks as tiny
import torch
from harvests import CPU, all_rows, config, image_recipe, job
from torch import Tensor, nn

from seminmf_lightning.core.discovery import build
from seminmf_lightning.harvest import HarvestRecipe, Store
from seminmf_lightning.harvest.inputs import Inputs
from seminmf_lightning.harvest.layers import Capture, Layer, list_shapes, match_layers

GATED = "model.layers.1.mlp.down_proj:input"


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    pytest.importorskip("transformers")
    return tiny.llama(tmp_path / "llama")


def recipe(llama: Path, corpus: Path, *layers: str) -> HarvestRecipe:
    model = {"name": "transformers", "path": str(llama), "architecture": "AutoModelForCausalLM"}
    return HarvestRecipe(model, {"name": "text", "path": str(corpus)}, layers, batch_size=4)


def test_the_input_of_a_gated_mlp_is_the_product_of_its_branches(llama: Path, corpus: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    layers = ("model.layers.1:input", GATED, "model.layers.1.mlp:output")
    harvested = all_rows(recipe(llama, corpus, *layers).harvester(CPU))
    tokenizer = AutoTokenizer.from_pretrained(llama)
    network = AutoModelForCausalLM.from_pretrained(llama).eval()
    mlp, branches, expected = network.model.layers[1].mlp, {}, []
    for branch in ("gate_proj", "up_proj"):
        mlp.get_submodule(branch).register_forward_hook(
            lambda module, args, output, branch=branch: branches.update({branch: output})
        )
    network.model.layers[0].register_forward_hook(
        lambda module, args, output: branches.update(block=output[0] if isinstance(output, tuple) else output)
    )
    blocks = []
    for line in corpus.read_text().splitlines():
        ids = tokenizer(json.loads(line)["text"])["input_ids"]
        for start in range(0, len(ids), 32):
            with torch.no_grad():
                network(input_ids=torch.tensor([ids[start : start + 32]]))
            expected.append((nn.functional.silu(branches["gate_proj"]) * branches["up_proj"])[0])
            blocks.append(branches["block"].reshape(-1, 16))
    gated, outputs = harvested[GATED], harvested["model.layers.1.mlp"]
    assert gated.values.shape[1] == 24 and outputs.values.shape[1] == 16
    assert (gated.values - torch.cat(expected)).abs().max() < 1e-6
    assert (gated.values @ mlp.down_proj.weight.T - outputs.values).abs().max() < 1e-6
    assert (harvested["model.layers.1:input"].values - torch.cat(blocks)).abs().max() < 1e-6
    for name, column in outputs.origin.items():
        assert np.array_equal(gated.origin[name], column)


def test_inputs_of_an_image_network_keep_their_patch(tmp_path: Path) -> None:
    folder = tiny.pictures(tmp_path / "pictures")
    layers = ["first", "relu:input", "relu@1:input", "second:input"]
    harvested = all_rows(image_recipe(folder, layers=layers).harvester(CPU))
    network, inputs = tiny.convolutions(), build(Inputs, {"name": "images", "path": str(folder)})
    from seminmf_lightning.harvest.models.callable import unit_range

    with torch.no_grad():
        first = network.first(torch.stack([unit_range(inputs.read(number)) for number in range(8)]))
        second = network.second(first.relu())
    # The ReLU works in place: its input is what it is given, not what it makes of it.
    for name, direct in (("relu:input", first), ("second:input", first.relu()), ("relu@1:input", second)):
        rows = harvested[name]
        assert (rows.values - direct.permute(0, 2, 3, 1).flatten(0, 2)).abs().max() < 1e-6
        assert rows.origin["height"][0] == direct.shape[2] and rows.origin["x"][1] == 1
    assert (harvested["relu:input"].values < 0).any()
    for name, column in harvested["first"].origin.items():
        assert np.array_equal(harvested["relu:input"].origin[name], column)


def test_an_input_goes_from_the_store_to_the_report(
    llama: Path,
    corpus: Path,
    tmp_path: Path,
    command: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    store, run = tmp_path / "store", tmp_path / "run"
    command(
        "harvest", f"model.path={llama}", "model=transformers", "model.architecture=AutoModelForCausalLM",
        "inputs=text", f"inputs.path={corpus}", f"layers=[model.norm,{GATED}]", f"output={store}",
    )  # fmt: skip
    assert f"data.layer={GATED}" in capsys.readouterr().out
    manifest = Store(store).manifest()
    assert manifest is not None and list(manifest["layers"]) == [GATED, "model.norm"]
    assert (store / "model.layers.1.mlp.down_proj@input" / "000000.safetensors").is_file()
    assert not list(store.rglob("*:*"))
    command("show-rows", f"store={store}", f"layer={GATED}", "rows=[0,1]")
    assert "[[" in capsys.readouterr().out
    command(
        "train", "data=shards", f"data.path={store}", f"data.layer={GATED}", "nb_concepts=6",
        f"hydra.run.dir={run}", "trainer=cpu", "logger=none",
    )  # fmt: skip
    command("evaluate", f"run={run}")
    command("report", f"run={run}", "max_concepts=4")
    assert json.loads((run / "metrics.json").read_text())["r2"] > 0
    assert any(word in (run / "report.html").read_text() for word in tiny.WORDS[2:4])


def test_training_takes_an_input_straight_from_the_network(
    llama: Path, corpus: Path, tmp_path: Path, command: Callable[..., None]
) -> None:
    command(
        "train", "data=harvest", f"data.model.path={llama}", f"data.inputs.path={corpus}",
        "data.layers=[layers.1.mlp.down_proj:input]", "nb_concepts=6", f"hydra.run.dir={tmp_path}/run",
        "trainer=cpu", "logger=none",
    )  # fmt: skip
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["r2"] > 0


def test_the_list_shows_inputs_that_no_module_returns(
    llama: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from seminmf_lightning.cli import harvest

    inputs = ("inputs=text", f"inputs.path={corpus}", "limit=1")
    harvest.list_layers(config("model=transformers", f"model.path={llama}", *inputs))
    lines = capsys.readouterr().out.splitlines()
    cells = {line.split("│")[1].strip(): line.split("│")[-2].strip() for line in lines if "│" in line}
    assert cells["layers.1.mlp.down_proj"].endswith("x 24")
    assert cells["layers.1.self_attn.o_proj"].endswith("x 16")
    # What these are given, another module returns: its output is in the list.
    assert not any(cells[f"layers.1.mlp.{name}"] for name in ("gate_proj", "up_proj", "act_fn"))
    assert not cells["embed_tokens"]


class Calls(nn.Module):
    """Calls modules in ways that give them no single tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.pair, self.keyword, self.masked, self.sum = Takes(), Takes(), Takes(), Takes()
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> None:
        self.pair((x, x))
        self.keyword(y=x)
        self.masked(x, None, torch.ones(2))
        self.sum(x, y=x)


class Takes(nn.Module):
    def forward(self, x: Any = None, y: Any = None, attention_mask: Any = None) -> Any:
        return torch.zeros(2, 3)


def capture(*layers: str) -> dict[str, Tensor]:
    network = Calls()
    run = Capture(network, match_layers(network, layers), lambda layer, tensor: tensor)
    return {str(layer): tensor for layer, tensor in run.run(lambda: network(torch.ones(2, 3))).items()}


def test_one_tensor_is_an_input_by_position_and_by_keyword_and_beside_a_mask() -> None:
    captured = capture("keyword:input", "masked:input")
    assert list(captured) == ["keyword:input", "masked:input"]
    assert all(torch.equal(tensor, torch.ones(2, 3)) for tensor in captured.values())


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("pair:input", r"layer pair:input is given dict of x: tuple, not exactly one tensor.*list=true"),
        ("sum:input", r"is given dict of x: a tensor \(2, 3\), y: a tensor \(2, 3\), not exactly one"),
        ("unused:input", r"layer unused:input was not reached: .* 'unused' 0 times.*list=true"),
        ("sum@2:input", r"layer sum@2:input was not reached: .* 'sum' 1 times; choose a call below @1"),
        ("sum:inputs", r"layer 'sum:inputs': unknown suffix ':inputs'; accepted: :input.*type sum:input"),
        ("sun:input", r"layer 'sun:input' is not in this Calls; nearest: sum"),
    ],
)
def test_what_is_no_input_is_named(layer: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        capture(layer)


def test_the_suffixes_make_different_layers_in_the_order_of_the_network() -> None:
    network = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)})
    found = match_layers(network, ["b", "*:input", "a:output", "a"])
    assert list(map(str, found)) == ["a:input", "a", "b:input", "b"]
    assert found[1] == Layer("a")


def test_a_layer_and_its_namesake_with_an_underscore_have_folders_of_their_own(tmp_path: Path) -> None:
    files = Store(tmp_path).files
    assert files("mlp:input", 0).activations.parent != files("mlp_input", 0).activations.parent


def test_shapes_are_listed_up_to_a_failure() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 3))
    layers, failure = list_shapes(network, lambda: network(torch.zeros(5, 2)))
    assert [(layer.name, layer.outputs, layer.inputs) for layer in layers] == [("0", [(5, 3)], [(5, 2)])]
    assert isinstance(failure, RuntimeError)


def test_a_store_of_inputs_resumes_as_one_of_outputs_does(tmp_path: Path) -> None:
    recipe = image_recipe(tiny.pictures(tmp_path / "pictures"), layers=["relu@1:input", "relu@1"])
    assert job(recipe, tmp_path / "store", shard_mb=0.002).run() is not None
    (tmp_path / "store" / "relu@1@input" / "index" / "000000.safetensors").unlink()
    manifest = job(recipe, tmp_path / "store", shard_mb=0.002).run()
    assert manifest is not None and set(manifest["layers"]) == {"relu@1:input", "relu@1"}
