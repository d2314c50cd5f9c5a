"""A ResNet with random weights."""

from __future__ import annotations

from pathlib import Path

from harvests import needs


def overrides(folder: Path) -> list[str]:
    needs("torchvision")
    return ["model.path=resnet18", "model.weights=null", "layers=[layer1.0.relu@1]", "inputs=photographs"]
