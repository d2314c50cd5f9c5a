"""A small vision transformer with random weights."""

from __future__ import annotations

from pathlib import Path

from harvests import needs


def overrides(folder: Path) -> list[str]:
    needs("timm")
    return ["model.path=test_vit", "model.pretrained=false", "layers=[blocks.1]", "inputs=photographs"]
