"""Images as one array."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def overrides(folder: Path) -> list[str]:
    np.save(folder / "x.npy", _images())
    return [f"inputs.path={folder}/x.npy", "model=callable", "model.target=tiny_networks:convolutions",
            "layers=[relu@1]"]  # fmt: skip


def edit(folder: Path) -> None:
    images = _images()
    images[2, 1, 17, 23] += 1  # one pixel, at no regular distance from the start
    np.save(folder / "x.npy", images)


def _images() -> np.ndarray:
    return np.random.default_rng(0).random((5, 3, 40, 40), dtype=np.float32)
