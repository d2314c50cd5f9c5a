"""Networks of timm: rows, special tokens, positions and regions. Skipped where timm does not import."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_networks as tiny
import torch
from harvests import CPU, all_rows, needs
from torch import nn

from seminmf_lightning.core.discovery import build
from seminmf_lightning.harvest import HarvestRecipe
from seminmf_lightning.harvest.inputs import Inputs

PLACE = (0.3, 0.7)
"""Centre of the bright square in the second image, as shares of height and width."""


@pytest.fixture(autouse=True)
def _timm() -> None:
    needs("timm")


def direct_outputs(network: nn.Module, layer: str, images: torch.Tensor) -> torch.Tensor:
    """What a layer returns in a plain forward pass."""
    outputs: list[torch.Tensor] = []
    network.get_submodule(layer).register_forward_hook(lambda module, args, out: outputs.append(out.clone()))
    with torch.no_grad():
        network(images)
    return outputs[0]


def test_rows_of_timm_are_those_of_a_direct_pass(tmp_path: Path) -> None:
    import timm

    options = {"img_size": 32, "depth": 2}
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", pretrained=False, **options).eval()
    torch.save(network.state_dict(), tmp_path / "vit.pt")
    model = {
        "name": "timm", "path": "vit_tiny_patch16_224", "options": options,
        "checkpoint": str(tmp_path / "vit.pt"),
    }  # fmt: skip
    inputs = {"name": "images", "path": str(tiny.pictures(tmp_path / "images"))}
    recipe = HarvestRecipe(model, inputs, "blocks.1", tokens="all", batch_size=3)
    rows = all_rows(recipe.harvester(CPU))["blocks.1"]
    images = torch.stack([recipe.loaded.feed.transform(build(Inputs, inputs).read(n)) for n in range(8)])
    expected = direct_outputs(network, "blocks.1", images)
    assert (rows.values - expected.flatten(0, 1)).abs().max() < 1e-6
    assert rows.origin["y"][:5].tolist() == [-1, 0, 0, 1, 1]  # [CLS] and 2 x 2 patches
    for tokens, per_image in (("no_special", 4), ("cls", 1)):
        chosen = all_rows(replace(recipe, tokens=tokens).harvester(CPU))["blocks.1"]
        assert len(chosen.values) == 8 * per_image


def bright_images(folder: Path, side: int) -> Path:
    """Two grey images; the second has a bright square at ``PLACE``."""
    from PIL import Image

    folder.mkdir()
    images = np.full((2, side, side, 3), 100, dtype=np.uint8)
    y, x = (int(side * share) for share in PLACE)
    images[1, y - 8 : y + 8, x - 8 : x + 8] = (255, 0, 255)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


def harvest(tmp_path: Path, path: str, layer: str, side: int = 224, **options: Any) -> Any:
    model = {"name": "timm", "path": path, "pretrained": False, "options": options}
    inputs = {"name": "images", "path": str(bright_images(tmp_path / "images", side))}
    harvester = HarvestRecipe(model, inputs, layer, batch_size=2).harvester(CPU)
    return all_rows(harvester)[layer], harvester.layouts[layer]


@pytest.mark.parametrize(
    ("path", "layer", "options", "prefix", "grid"),
    [
        ("vit_tiny_patch16_224", "model.blocks.1", {"features_only": True}, 1, 14),
        ("deit_tiny_distilled_patch16_224", "blocks.3", {}, 2, 14),
        ("crossvit_9_240", "blocks.1.blocks.0.0", {}, 1, 20),
        ("crossvit_9_240", "blocks.1.blocks.1.0", {}, 1, 14),
        ("convit_tiny", "blocks.2", {}, 0, 14),
        ("mixer_s32_224", "blocks.0", {}, 0, 7),
        ("swin_tiny_patch4_window7_224", "layers.1", {}, 0, 28),
        ("xcit_nano_12_p16_224", "cls_attn_blocks.0", {}, 1, 14),
    ],
)
def test_patches_of_timm_networks_have_their_place(
    tmp_path: Path, path: str, layer: str, options: dict[str, Any], prefix: int, grid: int
) -> None:
    side = 240 if "240" in path else 224
    rows, layout = harvest(tmp_path, path, layer, side, **options)
    assert (layout.prefix, layout.suffix, layout.unplaced) == (prefix, 0, None)
    assert len(rows.values) == 2 * grid**2
    plain, bright = rows.values.chunk(2)
    strongest = len(plain) + int((bright - plain).norm(dim=1).argmax())
    for axis, share in zip("yx", PLACE, strict=True):
        assert abs((rows.origin[axis][strongest] + 0.5) / grid - share) < 1 / grid + 0.04


def test_timm_rows_in_another_order_than_the_image_have_no_place(tmp_path: Path) -> None:
    rows, layout = harvest(tmp_path, "hiera_tiny_224", "blocks.1")
    assert "other rows than its own" in layout.unplaced
    assert len(rows.values) == 2 * 784 and (rows.origin["y"] == -1).all()


@pytest.mark.parametrize(
    ("path", "layer"),
    [("vit_tiny_patch16_224", "blocks.1.attn.k_norm"), ("nest_tiny", "levels.1.transformer_encoder.0"),
     ("swin_tiny_patch4_window7_224", "layers.0.blocks.1.attn")],
)  # fmt: skip
def test_timm_layers_of_heads_blocks_and_windows_are_refused(tmp_path: Path, path: str, layer: str) -> None:
    with pytest.raises(ValueError, match=rf"layer {layer}.*(heads|windows)"):
        harvest(tmp_path, path, layer)


def test_a_timm_class_token_alone_is_no_patch(tmp_path: Path) -> None:
    rows, _ = harvest(tmp_path, "cait_xxs24_224", "blocks_token_only.1")
    assert len(rows.values) == 2 and (rows.origin["y"] == -1).all()


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("crop_pct", [1.0, 0.8])
@pytest.mark.parametrize("size", [(200, 400), (500, 180)])
def test_the_region_of_a_timm_crop_holds_what_the_network_sees(
    crop_mode: str, crop_pct: float, size: tuple[int, int]
) -> None:
    from PIL import Image

    from seminmf_lightning.harvest.models.timm import TimmModel

    overlay = {"crop_mode": crop_mode, "crop_pct": crop_pct}
    options = {"pretrained_cfg_overlay": overlay}
    feed = TimmModel("test_resnet", pretrained=False, options=options).load("image").feed
    top, left, height, width = feed.region(*size)
    images = np.zeros((2, *size, 3), dtype=np.uint8)
    y, x = size[0] // 2 - 20, size[1] // 2 + 30
    images[1, y - 6 : y + 6, x - 6 : x + 6] = 255
    dark, lit = (feed.transform(Image.fromarray(image)) for image in images)
    light = (lit - dark).abs().sum(dim=0)
    for axis, expected in enumerate([(y - top) / height, (x - left) / width]):
        profile = light.sum(dim=1 - axis)
        centre = float((profile * (torch.arange(len(profile)) + 0.5)).sum() / profile.sum()) / len(profile)
        assert centre == pytest.approx(expected, abs=0.02)
