"""Networks of timm and torchvision; skipped where these libraries do not import."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import tiny_networks as tiny
import torch
from harvests import CPU, all_rows, needs

from seminmf_lightning.core.discovery import build
from seminmf_lightning.harvest import HarvestRecipe
from seminmf_lightning.harvest.inputs import Inputs


def test_rows_of_timm_and_torchvision_are_those_of_a_direct_pass(tmp_path: Path) -> None:
    needs("timm")
    import timm
    import torchvision

    folder = tiny.pictures(tmp_path / "pictures")
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=32, depth=2).eval()
    torch.save(vit.state_dict(), tmp_path / "vit.pt")
    torch.manual_seed(0)
    resnet = torchvision.models.resnet18(weights=None).eval()
    torch.save(resnet.state_dict(), tmp_path / "resnet.pt")
    inputs = {"name": "images", "path": str(folder)}
    models = (
        ({"name": "timm", "path": "vit_tiny_patch16_224", "checkpoint": str(tmp_path / "vit.pt"),
          "options": {"img_size": 32, "depth": 2}}, "blocks.1", vit),
        ({"name": "torchvision", "path": "resnet18", "weights": None, "checkpoint": str(tmp_path / "resnet.pt"),
          "image_size": 32}, "layer2.0.bn2", resnet),
    )  # fmt: skip
    for model, layer, direct in models:
        recipe = HarvestRecipe(model, inputs, layer, tokens="all", batch_size=3)
        rows = all_rows(recipe.harvester(CPU))[layer]
        kept = []
        handle = direct.get_submodule(layer).register_forward_hook(
            lambda module, args, out, kept=kept: kept.append(out.clone())
        )
        transform = recipe.loaded.feed.transform
        with torch.no_grad():
            direct(torch.stack([transform(build(Inputs, inputs).read(number)) for number in range(8)]))
        handle.remove()
        expected = kept[0] if kept[0].ndim == 3 else kept[0].permute(0, 2, 3, 1).flatten(1, 2)
        assert (rows.values - expected.flatten(0, 1)).abs().max() < 1e-6
        assert recipe.loaded.feed.region(40, 48)[2] <= 40
        if expected.shape[1] == 5:  # the ViT: [CLS] and 2 x 2 patches
            assert rows.origin["y"][:5].tolist() == [-1, 0, 0, 1, 1]
            assert len(all_rows(replace(recipe, tokens="no_special").harvester(CPU))[layer].values) == 8 * 4
            assert len(all_rows(replace(recipe, tokens="cls").harvester(CPU))[layer].values) == 8
