"""The network of the demo over its photographs."""

from __future__ import annotations

from pathlib import Path


def overrides(folder: Path) -> list[str]:
    return ["layers=[_swish@1]", "inputs=photographs"]
