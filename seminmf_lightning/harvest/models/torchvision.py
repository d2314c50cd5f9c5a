"""Models of torchvision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from seminmf_lightning.harvest.adapters import CentreCrop, Feed, ImageFeed, TensorFeed
from seminmf_lightning.harvest.models.base import Loaded, Model, load_weights, only, weights_digest


@dataclass
class TorchvisionModel(Model):
    """Loads any model that ``torchvision.models.get_model`` makes."""

    path: str
    """Name, such as ``resnet50``."""
    weights: str | None = "DEFAULT"
    """Name of pretrained weights; None: random weights, which need ``image_size``."""
    checkpoint: str | None = None
    """File of weights (a state dict) to load."""
    image_size: int = 224
    """Side of the image in pixels, where no pretrained weights say how to preprocess."""
    options: dict[str, Any] = field(default_factory=dict)
    """More arguments of the model's constructor."""

    def load(self, kind: str) -> Loaded:
        only(kind, ("image", "tensor"), "torchvision")
        try:
            from torchvision.models import get_model, get_model_weights, list_models
            from torchvision.transforms._presets import ImageClassification
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "model=torchvision needs: pip install 'seminmf-lightning[torchvision]'"
            ) from error
        if self.path not in list_models():
            raise ValueError(
                f"model.path={self.path!r} is not a model of torchvision; it has {', '.join(list_models())}"
            )
        accepted = ["DEFAULT", *get_model_weights(self.path).__members__]
        if self.weights is not None and self.weights not in accepted:
            raise ValueError(
                f"model.weights={self.weights!r}: {self.path} has {', '.join(accepted)}; "
                "null gives random ones"
            )
        network = get_model(self.path, weights=self.weights, **self.options).eval()
        if self.checkpoint is not None:
            load_weights(network, self.checkpoint)
        if self.weights is not None:
            transform = get_model_weights(self.path)[self.weights].transforms()
        else:
            transform = ImageClassification(crop_size=self.image_size, resize_size=self.image_size)
        feed: Feed = TensorFeed(images=True)
        if kind == "image":
            feed = ImageFeed(transform, _region(transform))
        feed.prefix_tokens = 1 if hasattr(network, "class_token") else 0
        description = {
            "library": "torchvision",
            "path": self.path,
            "architecture": type(network).__name__,
            "revision": self.weights,
            "weights": weights_digest(network),
            "precision": "float32",
            "preprocessing": repr(transform),
        }
        return Loaded(network, feed, description)


def _region(transform: Any) -> CentreCrop:
    resize, crop = transform.resize_size[0], transform.crop_size
    return CentreCrop((resize, resize), (crop[0], crop[-1]))
