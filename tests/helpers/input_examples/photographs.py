"""The photographs of the demo."""

from __future__ import annotations

from pathlib import Path


def overrides(folder: Path) -> list[str]:
    return ["model=efficientnet_lite", "layers=[_swish@1]"]
