"""A function of your own that makes the network."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seminmf_lightning.harvest.adapters import Feed, ImageFeed, TensorFeed, whole_image
from seminmf_lightning.harvest.models.base import Loaded, Model, only, plain
from seminmf_lightning.harvest.models.weights import NotLoaded, load_weights, weights_digest
from seminmf_lightning.harvest.text_feed import TextFeed, tokenizer_digest


@dataclass
class CallableModel(Model):
    """Calls ``target`` with ``options``; it returns an ``nn.Module``, or a pair of it and its preprocessing.

    The preprocessing is a function from a PIL image (RGB) to a tensor, or a fast tokenizer of transformers.
    """

    target: str
    """``module:function`` or ``module.function``; the current folder is searched too."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of the function."""
    checkpoint: str | None = None
    """A file of weights to load into the network."""
    max_length: int = 512
    """Tokens per window, for texts."""
    prefix_tokens: int = 0
    """Tokens before the patches of an image."""

    def load(self, kind: str) -> Loaded:
        only(kind, ("image", "text", "tensor"), "callable")
        made = _import(self.target)(**self.options)
        network, preprocess = made if isinstance(made, tuple) else (made, None)
        if not isinstance(network, nn.Module):
            raise TypeError(
                f"model.target={self.target!r} must return an nn.Module, got {type(network).__name__}"
            )
        not_loaded = NotLoaded() if self.checkpoint is None else load_weights(network, self.checkpoint)
        feed: Feed = TensorFeed()
        if kind == "image":
            feed = ImageFeed(preprocess or unit_range, whole_image)
        elif kind == "text":
            if preprocess is None:
                raise ValueError(
                    f"model.target={self.target!r} must return (network, tokenizer) for inputs of kind 'text'"
                )
            feed = TextFeed(preprocess, self.max_length)
        feed.prefix_tokens = self.prefix_tokens
        description = {
            "library": "callable", "path": self.target, "architecture": type(network).__name__,
            "revision": None, "weights": weights_digest(network), "precision": "float32",
            "preprocessing": getattr(preprocess, "__name__", None),
        }  # fmt: skip
        if isinstance(feed, TextFeed):
            description |= {"max_length": self.max_length, "tokenizer": tokenizer_digest(preprocess)}
        if self.options:
            description["options"] = plain(self.options)
        if self.prefix_tokens:
            description["prefix_tokens"] = self.prefix_tokens
        return Loaded(network.eval(), feed, description, not_loaded)


def unit_range(image: Any) -> Tensor:
    """Convert an image to a tensor (3, h, w) in [0, 1]."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def _import(target: str) -> Callable[..., Any]:
    module, _, name = target.rpartition(":" if ":" in target else ".")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"model.target={target!r} cannot be imported ({error}); write it as module:function"
        ) from error
    if not callable(function):
        raise TypeError(f"model.target={target!r} is not a function, it is {function!r}")
    return function
