"""Layers are found by name, and hooks return what a direct forward pass returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_networks as tiny
import torch
from harvests import CPU, all_rows, image_recipe
from torch import nn

from seminmf_lightning.core.discovery import build
from seminmf_lightning.harvest.inputs import Inputs
from seminmf_lightning.harvest.layers import Capture, Layer, match_layers


def test_rows_of_maps_survive_what_later_layers_do_in_place(tmp_path: Path) -> None:
    folder = tiny.pictures(tmp_path / "pictures")
    harvested = all_rows(image_recipe(folder, layers=["first", "second", "relu@1"]).harvester(CPU))
    network, inputs = tiny.convolutions(), build(Inputs, {"name": "images", "path": str(folder)})
    from seminmf_lightning.harvest.models.callable import unit_range

    x = torch.stack([unit_range(inputs.read(number)) for number in range(8)])
    with torch.no_grad():
        first = network.first(x)
        second = network.second(first.relu())
    for name, direct in (("first", first), ("second", second), ("relu@1", second.relu())):
        rows = harvested[name]
        assert (rows.values - direct.permute(0, 2, 3, 1).flatten(0, 2)).abs().max() < 1e-6
        y, x_at, example = rows.origin["y"][7], rows.origin["x"][7], rows.origin["example"][7]
        assert torch.allclose(rows.values[7], direct[example, :, y, x_at])


def test_layers_by_name_and_glob() -> None:
    network = nn.ModuleDict(
        {"a": nn.Sequential(nn.Linear(1, 1), nn.ReLU()), "b": nn.ModuleDict({"c": nn.Linear(1, 1)})}
    )
    assert [str(layer) for layer in match_layers(network, ["b.c@2", "a.*"])] == ["a.0", "a.1", "b.c@2"]
    assert [str(layer) for layer in match_layers(network, "**.c")] == ["b.c"]
    with pytest.raises(ValueError, match=r"'a\.00' is not in this ModuleDict; nearest: a\.0"):
        match_layers(network, "a.00")
    with pytest.raises(ValueError, match="no layers given"):
        match_layers(network, [])


def test_layers_that_give_no_rows_are_named(tmp_path: Path) -> None:
    folder = tiny.pictures(tmp_path / "pictures", 2)
    for layer, words in (
        ("names", "layer names returns list, not activations"),
        ("relu@5", r"relu@5 was not reached.*2 times"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            all_rows(image_recipe(folder, layers=layer).harvester(CPU))


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (torch.eye(3).to_sparse(), "a tensor of layout torch.sparse_coo"),
        (torch.zeros(3, 0), r"an empty tensor \(3, 0\)"),
        (torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), "a nested tensor"),
        ({"cache": torch.zeros(3, 2), "n": 4}, r"dict of cache: a tensor \(3, 2\), n: int"),
    ],
)
def test_tensors_that_are_no_activations_are_named(output: Any, words: str) -> None:
    class Odd(nn.Module):
        def forward(self) -> Any:
            return output

    network = nn.ModuleDict({"odd": Odd()})
    capture = Capture(network, [Layer("odd")], lambda layer, tensor: tensor)
    with pytest.raises(ValueError, match=f"layer odd returns {words}, not activations"):
        capture.run(lambda: network["odd"]())
