"""The images inside scikit-image, cut into square tiles: real images without a download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import metadata
from typing import Any

from seminmf_lightning.core.checks import whole_number
from seminmf_lightning.harvest.inputs.base import Inputs, digest_of

PHOTOGRAPHS = (
    "astronaut", "brick", "camera", "cell", "chelsea", "coffee", "coins", "grass",
    "gravel", "hubble_deep_field", "immunohistochemistry", "moon", "retina", "rocket", "stereo_motorcycle",
)  # fmt: skip
INSTALL = "pip install 'seminmf-lightning[demo]'"


@dataclass
class Photographs(Inputs):
    """Non-overlapping tiles, image by image, row by row."""

    tiles_a_side: int = 3
    """Tiles along the shorter side of each image."""
    kind = "image"

    def __post_init__(self) -> None:
        whole_number("inputs.tiles_a_side", self.tiles_a_side, 1)

    @cached_property
    def tiles(self) -> list[tuple[str, int, int, int]]:
        """Name of the image, top, left and side of each tile."""
        tiles = []
        for name in PHOTOGRAPHS:
            height, width = _photograph(name).shape[:2]
            side = min(height, width) // self.tiles_a_side
            tops, lefts = range(0, height - side + 1, side), range(0, width - side + 1, side)
            tiles += [(name, top, left, side) for top in tops for left in lefts]
        return tiles

    def __len__(self) -> int:
        return len(self.tiles)

    def read(self, example: int) -> Any:
        from PIL import Image

        name, top, left, side = self.tiles[example]
        return Image.fromarray(_photograph(name)[top : top + side, left : left + side]).convert("RGB")

    def digest(self) -> str:
        return digest_of([str(self.tiles), metadata.version("scikit-image")])  # which contains the images

    def identify(self, example: int) -> str:
        name, top, left, side = self.tiles[example]
        return f"{name}[{top}:{top + side}, {left}:{left + side}]"


@lru_cache(maxsize=2)
def _photograph(name: str) -> Any:
    try:
        from skimage import data
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the demo data needs {error.name!r}, which is not installed: {INSTALL}  "
            "(or train on your own rows: data=npy data.path=activations.npy)"
        ) from error
    image = getattr(data, name)()
    if isinstance(image, tuple):  # a stereo pair with its disparity
        image = image[0]
    return image[..., :3] if image.ndim == 3 else image
