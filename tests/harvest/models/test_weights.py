"""Weights that a checkpoint lacks never become rows: the layer that depends on them is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_networks as tiny
import torch
from harvests import CPU, all_rows, text_recipe
from torch import nn

from seminmf_lightning.harvest import HarvestRecipe
from seminmf_lightning.harvest.models.weights import load_weights

State = dict[str, torch.Tensor]


def two_layers() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))


def saved(folder: Path, change: Callable[[State], State]) -> dict[str, Any]:
    torch.save(change(dict(two_layers().state_dict())), folder / "w.pt")
    np.save(folder / "x.npy", np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32))
    return {"name": "callable", "target": f"{__name__}:two_layers", "checkpoint": str(folder / "w.pt")}


def rows(folder: Path, model: dict[str, Any], layer: str) -> torch.Tensor:
    recipe = HarvestRecipe(model, {"name": "tensors", "path": str(folder / "x.npy")}, layer)
    return all_rows(recipe.harvester(CPU))[layer].values


@pytest.mark.parametrize("lacking", ["0.bias", "1.running_mean", "1.weight", "2.weight"])
def test_a_layer_that_depends_on_a_missing_weight_is_refused(lacking: str, tmp_path: Path) -> None:
    model = saved(tmp_path, lambda state: {name: value for name, value in state.items() if name != lacking})
    with pytest.raises(
        ValueError, match=rf"layer 2 depends on weights that were not loaded.*lacks {lacking}"
    ):
        rows(tmp_path, model, "2")


def test_a_head_that_is_not_asked_for_may_be_missing(tmp_path: Path) -> None:
    model = saved(tmp_path, lambda state: {name: value for name, value in state.items() if name[0] != "2"})
    assert torch.equal(rows(tmp_path, model, "1"), rows(tmp_path, model | {"checkpoint": None}, "1"))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_removed(prefix: str, tmp_path: Path) -> None:
    model = saved(tmp_path, lambda state: {prefix + name: value for name, value in state.items()})
    assert rows(tmp_path, model, "2").isfinite().all()


def test_weights_of_another_network_and_adapters_are_refused(tmp_path: Path) -> None:
    model = saved(tmp_path, lambda state: {f"encoder.{name}": value for name, value in state.items()})
    with pytest.raises(
        ValueError, match=r"none of its 9 weights .* holds encoder\.0\.weight.* has 0\.weight"
    ):
        rows(tmp_path, model, "2")
    model = saved(tmp_path, lambda state: state | {"0.lora_A.default.weight": torch.ones(2, 4)})
    with pytest.raises(ValueError, match=r"0\.lora_A\.default\.weight belongs to a Linear .*merge adapters"):
        rows(tmp_path, model, "2")
    model = saved(tmp_path, lambda state: state | {"2.weight": torch.ones(3, 6)})
    with pytest.raises(ValueError, match=r"w\.pt.*2\.weight"):
        rows(tmp_path, model, "2")


def test_tied_weights_count_as_loaded(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    torch.save({k: v for k, v in network.state_dict().items() if k != "1.weight"}, tmp_path / "w.pt")
    assert load_weights(network, str(tmp_path / "w.pt")).missing == ()
    assert network[0].weight.isfinite().all()


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    pytest.importorskip("transformers")
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in tiny.texts(3, seed=8))
    )
    return tmp_path / "t.jsonl"


def test_a_folder_of_transformers_without_a_layer_gives_the_layers_before_it(
    texts: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny.bert(tmp_path / "bert")
    whole = all_rows(text_recipe(folder, texts, layers="encoder.layer.0").harvester(CPU))["encoder.layer.0"]
    cut = tmp_path / "cut"
    shutil.copytree(folder, cut)
    state = load_file(cut / "model.safetensors")
    state = {name: value for name, value in state.items() if "layer.1.output.dense" not in name}
    save_file(state, cut / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"layer encoder\.layer\.1 depends .*encoder\.layer\.1\.output\.dense\.weight"
    ):
        all_rows(text_recipe(cut, texts, layers="encoder.layer.1").harvester(CPU))
    before = all_rows(text_recipe(cut, texts, layers="encoder.layer.0").harvester(CPU))["encoder.layer.0"]
    assert torch.equal(before.values, whole.values)
    save_file({f"net.{k}": v for k, v in state.items()}, cut / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"depends .* does not have: net\."):
        all_rows(text_recipe(cut, texts, layers="encoder.layer.0").harvester(CPU))
