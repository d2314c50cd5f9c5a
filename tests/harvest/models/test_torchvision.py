"""Networks of torchvision: rows, regions, weights. Skipped where torchvision does not import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_networks as tiny
import torch
from harvests import CPU, all_rows, needs

from seminmf_lightning.core.discovery import build
from seminmf_lightning.harvest import HarvestRecipe
from seminmf_lightning.harvest.inputs import Inputs


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip without torchvision; any download is an error."""
    needs("torchvision")
    import torchvision

    def download(url: str, *args: Any, **options: Any) -> None:
        raise AssertionError(f"asked for {url}")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", download)


def test_rows_of_torchvision_are_those_of_a_direct_pass(tmp_path: Path) -> None:
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "resnet.pt")
    model = {
        "name": "torchvision", "path": "resnet18", "weights": None, "image_size": 32,
        "checkpoint": str(tmp_path / "resnet.pt"),
    }  # fmt: skip
    inputs = {"name": "images", "path": str(tiny.pictures(tmp_path / "images"))}
    recipe = HarvestRecipe(model, inputs, "layer2.0.bn2", tokens="all", batch_size=3)
    rows = all_rows(recipe.harvester(CPU))["layer2.0.bn2"]
    outputs: list[torch.Tensor] = []
    network.layer2[0].bn2.register_forward_hook(lambda module, args, out: outputs.append(out.clone()))
    with torch.no_grad():
        network(torch.stack([recipe.loaded.feed.transform(build(Inputs, inputs).read(n)) for n in range(8)]))
    assert (rows.values - outputs[0].permute(0, 2, 3, 1).flatten(0, 2)).abs().max() < 1e-6
    assert recipe.loaded.feed.region(40, 48) == (0.0, 4.0, 40.0, 40.0)


def test_every_set_of_torchvision_weights_has_a_region() -> None:
    from torchvision.models import get_model_weights, list_models

    from seminmf_lightning.harvest.models.torchvision import _region

    for name in list_models():
        for weights in get_model_weights(name):
            top, left, height, width = _region(weights.transforms())(300, 400)
            assert top >= 0 and left >= 0 and height > 0 and width > 0 and top + height <= 300


def test_torchvision_networks_of_videos_are_refused_for_images() -> None:
    from seminmf_lightning.harvest.models.torchvision import TorchvisionModel

    with pytest.raises(ValueError, match=r"'r3d_18' takes videos .* use inputs=tensors"):
        TorchvisionModel("r3d_18").load("image")


@pytest.mark.parametrize("path", ["resnet18", "googlenet"])
def test_a_torchvision_checkpoint_keeps_the_preprocessing_of_its_weights(tmp_path: Path, path: str) -> None:
    import torchvision

    from seminmf_lightning.harvest.models.torchvision import TorchvisionModel

    file = tmp_path / "weights.pth"
    state = torchvision.models.get_model(path, weights=None).state_dict()
    torch.save(state, file)
    loaded = TorchvisionModel(path, checkpoint=str(file)).load("image")
    assert loaded.feed.region(256, 256) == (16.0, 16.0, 224.0, 224.0)
    assert all(torch.equal(value, state[name]) for name, value in loaded.network.state_dict().items())
    # As in the pretrained GoogLeNet.
    assert dict(vars(loaded.network)).get("transform_input", True) is True
    del state["conv1.weight" if path == "resnet18" else "conv1.conv.weight"]
    torch.save(state, file)
    with pytest.raises(ValueError, match=r"weights\.pth: not a file of weights of .*Missing key"):
        TorchvisionModel(path, checkpoint=str(file)).load("image")


def test_a_fine_tuned_torchvision_head_is_loaded(tmp_path: Path) -> None:
    import torchvision

    from seminmf_lightning.harvest.models.torchvision import TorchvisionModel

    file = tmp_path / "tuned.pth"
    torch.save(torchvision.models.resnet18(num_classes=7).state_dict(), file)
    loaded = TorchvisionModel("resnet18", checkpoint=str(file), options={"num_classes": 7}).load("image")
    assert loaded.network.fc.out_features == 7
    assert loaded.feed.region(256, 256)[2] == 224


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("lraspp_mobilenet_v3_large", "backbone.4"),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", "backbone.body.6"),
    ],
)
def test_torchvision_segmentation_and_detection_have_places(tmp_path: Path, path: str, layer: str) -> None:
    from PIL import Image

    images = np.full((2, 200, 300, 3), 100, dtype=np.uint8)
    images[1, 130:150, 230:250] = (255, 0, 255)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    model = {"name": "torchvision", "path": path, "weights": None, "image_size": 200}
    recipe = HarvestRecipe(model, {"name": "images", "path": str(tmp_path)}, layer, batch_size=2)
    from torchvision.transforms._presets import ObjectDetection, SemanticSegmentation

    feed = recipe.loaded.feed  # as with pretrained weights, which are not at hand
    feed.transform = ObjectDetection() if "rcnn" in path else SemanticSegmentation(resize_size=200)
    rows = all_rows(recipe.harvester(CPU))[layer]
    plain, bright = rows.values.chunk(2)
    strongest = len(plain) + int((bright - plain).norm(dim=1).argmax())
    assert rows.origin["y"][strongest] >= 0
    region = (0.0, 0.0, 200.0, 300.0) if "rcnn" not in path else feed.region(200, 300)
    cell = {name: rows.origin[name][strongest] for name in ("y", "x", "height", "width")}
    y = region[0] + (cell["y"] + 0.5) / cell["height"] * region[2]
    x = region[1] + (cell["x"] + 0.5) / cell["width"] * region[3]
    assert abs(y - 140) < 25 and abs(x - 240) < 25
