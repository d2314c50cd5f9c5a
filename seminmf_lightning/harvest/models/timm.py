"""Models of timm."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Any

from seminmf_lightning.harvest.adapters import CentreCrop, Feed, ImageFeed, TensorFeed
from seminmf_lightning.harvest.models.base import Loaded, Model, local_path, only, plain
from seminmf_lightning.harvest.models.weights import NotLoaded, load_weights, weights_digest


@dataclass
class TimmModel(Model):
    """Loads any model that ``timm.create_model`` makes."""

    path: str
    """Name (``vit_base_patch16_224``, ``hf-hub:...``), or a local folder with ``config.json`` and weights."""
    pretrained: bool = True
    """False: random weights."""
    checkpoint: str | None = None
    """File of weights to load instead of the pretrained ones."""
    options: dict[str, Any] = field(default_factory=dict)
    """More arguments of ``timm.create_model``, such as ``img_size``."""

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
        not_loaded = NotLoaded() if self.checkpoint is None else load_weights(network, self.checkpoint)
        side = self.options.get("img_size")
        shape = None if side is None else (3, *(side if isinstance(side, list | tuple) else (side, side)))
        settings = resolve_data_config({"input_size": shape}, model=network)
        feed: Feed = TensorFeed(images=True)
        if kind == "image":
            feed = ImageFeed(create_transform(**settings, is_training=False), _region(settings))
        # `features_only` wraps the network that has the attribute.
        prefixes = [m.num_prefix_tokens for m in network.modules() if hasattr(m, "num_prefix_tokens")]
        feed.prefix_tokens = int(prefixes[0]) if prefixes else 0
        feed.channels_last = str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC")
        pretrained_cfg = getattr(network, "pretrained_cfg", None) or {}
        description = {
            "library": "timm",
            "path": self.path,
            "architecture": type(network).__name__,
            "revision": pretrained_cfg.get("tag") if self.pretrained else None,
            "weights": weights_digest(network),
            "precision": "float32",
            "preprocessing": {
                key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()
            },
        }
        if self.options:
            description["options"] = plain(self.options)
        return Loaded(network, feed, description, not_loaded)


def _region(settings: dict[str, Any]) -> CentreCrop:
    """Return the region that timm's evaluation transform keeps."""
    height, width = settings["input_size"][1:]
    share = settings["crop_pct"]
    fit = {"squash": "stretch", "border": "inside"}.get(settings["crop_mode"], "cover")
    return CentreCrop((math.floor(height / share), math.floor(width / share)), (height, width), fit)
