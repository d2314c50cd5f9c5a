"""Two convolutions over random images."""

from __future__ import annotations

from pathlib import Path

import tiny_networks as tiny


def overrides(folder: Path) -> list[str]:
    return ["model.target=tiny_networks:convolutions", "layers=[relu@1]",
            "inputs=images", f"inputs.path={tiny.pictures(folder / 'images')}"]  # fmt: skip
