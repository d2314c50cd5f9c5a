"""Random images in a folder."""

from __future__ import annotations

from pathlib import Path

import tiny_networks as tiny


def overrides(folder: Path) -> list[str]:
    return [f"inputs.path={tiny.pictures(folder / 'images')}", "model=callable",
            "model.target=tiny_networks:convolutions", "layers=[relu@1]"]  # fmt: skip


def edit(folder: Path) -> None:
    (folder / "images" / "03.png").write_bytes((folder / "images" / "05.png").read_bytes())
