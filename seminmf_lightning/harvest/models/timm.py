"""Models of timm."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from seminmf_lightning.harvest.adapters import CentreCrop, Feed, ImageFeed, TensorFeed, whole_picture
from seminmf_lightning.harvest.models.base import (
    Loaded,
    Model,
    load_weights,
    local_path,
    only,
    weights_digest,
)


@dataclass
class TimmModel(Model):
    """Any model that ``timm.create_model`` makes."""

    path: str
    """Name (``vit_base_patch16_224``, ``hf-hub:...``), or a local folder in hub form (``config.json`` and
    weights)."""
    pretrained: bool = True
    """False: random weights."""
    checkpoint: str | None = None
    """A file of weights to load instead."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of ``timm.create_model``, such as ``img_size``."""

    def load(self, kind: str) -> Loaded:
        only(kind, ("image", "tensor"), "timm")
        try:
            import timm
            from timm.data import create_transform, resolve_data_config
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("model=timm needs: pip install 'seminmf-lightning[timm]'") from error
        path = local_path(self.path)
        name = f"local-dir:{path}" if os.path.isdir(path) else path
        pretrained = self.pretrained and self.checkpoint is None
        network = timm.create_model(name, pretrained=pretrained, **self.options).eval()
        if self.checkpoint is not None:
            load_weights(network, self.checkpoint)
        side = self.options.get("img_size")
        shape = None if side is None else (3, *(side if isinstance(side, list | tuple) else (side, side)))
        settings = resolve_data_config({"input_size": shape}, model=network)
        feed: Feed = TensorFeed(pictures=True)
        if kind == "image":
            feed = ImageFeed(create_transform(**settings, is_training=False), _region(settings))
        feed.prefix_tokens = getattr(network, "num_prefix_tokens", 0)
        feed.channels_last = str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC")
        description = {
            "library": "timm", "path": self.path, "architecture": type(network).__name__,
            "revision": (getattr(network, "pretrained_cfg", None) or {}).get("tag") if self.pretrained else None,
            "weights": weights_digest(network), "precision": "float32",
            "preprocessing": {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()},
        }  # fmt: skip
        return Loaded(network, feed, description)


def _region(settings: dict[str, Any]) -> Any:
    height, width = settings["input_size"][1:]
    if settings["crop_mode"] == "squash":
        return whole_picture
    share = settings["crop_pct"]
    return CentreCrop((height // share, width // share), (height, width))
