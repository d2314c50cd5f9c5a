"""Turn examples (images, tensors) into the inputs of a network; texts are in ``text_feed``.

An example becomes one or more *items*, the rows of a batch of the network: a long text is cut into windows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seminmf_lightning.harvest.inputs import Unreadable

Region = tuple[float, float, float, float]
"""Top, left, height and width, in pixels of an image. What lies outside the image is padding."""


@dataclass
class Item:
    """One row of a network's batch, without the batch axis."""

    example: int
    window: int
    """Number of this item within its example."""
    inputs: dict[str, Tensor]
    special: Tensor | None = None
    """(t,) bool: True for tokens without text, such as [CLS]. None for images and tensors."""
    spans: Tensor | None = None
    """(t, 2) int32: first and last character (exclusive) of each token in its text."""

    @property
    def tokens(self) -> int:
        return 0 if self.special is None else len(self.special)


class Feed(ABC):
    """Prepares examples for one network, and calls it."""

    prefix_tokens: int = 0
    """Tokens before the patches of an image ([CLS], registers), as given by the library."""
    images: bool = False
    """True if the network takes images, so that a sequence may be a grid of patches."""
    channels_last: bool = False
    """True if maps whose shape is ambiguous are (n, h, w, c)."""
    pool: int = 1
    """Number of batches whose items are sorted by length together, to save padding."""

    @abstractmethod
    def items(self, example: int, content: Any) -> list[Item]:
        """Return the items of one example."""

    @abstractmethod
    def call(self, network: nn.Module, items: list[Item], device: torch.device) -> None:
        """Run the network on a batch of items."""

    @abstractmethod
    def record(self, content: Any) -> dict[str, Any]:
        """Return the record of an example in the store, to trace a row back to it."""


class ImageFeed(Feed):
    """Prepares images by the model's own preprocessing.

    Args:
        transform: maps a PIL image (RGB) to a tensor (3, h, w).
        region: maps the height and width of an image to the part of it that the network sees.
        keyword: name of the network's argument; None passes the batch by position.
    """

    images = True

    def __init__(
        self, transform: Callable[[Any], Tensor], region: Callable[[int, int], Region], *,
        keyword: str | None = None, prefix_tokens: int = 0,
    ) -> None:  # fmt: skip
        self.transform, self.region, self.keyword = transform, region, keyword
        self.prefix_tokens = prefix_tokens

    def items(self, example: int, content: Any) -> list[Item]:
        try:
            return [Item(example, 0, {"image": self.transform(content)})]
        except (ValueError, RuntimeError, OSError) as error:
            raise Unreadable(f"its image of {content.size} cannot be preprocessed ({error})") from error

    def call(self, network: nn.Module, items: list[Item], device: torch.device) -> None:
        batch = stack([item.inputs["image"] for item in items]).to(device)
        batch = batch.to(next((p.dtype for p in network.parameters() if p.is_floating_point()), batch.dtype))
        if self.keyword is None:
            network(batch)
        else:
            network(**{self.keyword: batch})

    def record(self, content: Any) -> dict[str, Any]:
        width, height = content.size
        return {"size": [height, width], "region": list(self.region(height, width))}


class TensorFeed(Feed):
    """Passes tensors to the network unchanged, in batches."""

    def __init__(self, prefix_tokens: int = 0, *, images: bool = False) -> None:
        self.prefix_tokens, self.images = prefix_tokens, images

    def items(self, example: int, content: Tensor) -> list[Item]:
        return [Item(example, 0, {"tensor": content})]

    def call(self, network: nn.Module, items: list[Item], device: torch.device) -> None:
        network(stack([item.inputs["tensor"] for item in items]).to(device))

    def record(self, content: Tensor) -> dict[str, Any]:
        return {"shape": list(content.shape)}


def stack(tensors: list[Tensor]) -> Tensor:
    """Stack tensors of one shape into a batch (n, ...).

    Raises:
        ValueError: the shapes differ; the message lists them.
    """
    if len(shapes := {tuple(one.shape) for one in tensors}) > 1:
        raise ValueError(
            f"images of different sizes cannot share a batch: {', '.join(map(str, sorted(shapes)))}; "
            "resize them in the preprocessing, or set batch_size=1"
        )
    return torch.stack(tensors)


def whole_image(height: int, width: int) -> Region:
    """Return the region of preprocessing that does not crop: all of the image.

    >>> whole_image(40, 60)
    (0.0, 0.0, 40.0, 60.0)
    """
    return 0.0, 0.0, float(height), float(width)


@dataclass(frozen=True)
class CentreCrop:
    """Region of preprocessing that resizes an image to ``resize`` and then takes its centre, ``crop``.

    Both are (height, width) in pixels. ``fit`` is how the image is resized: to ``cover`` that size or to lie
    ``inside`` it, keeping its aspect, or to ``stretch`` to it. What lies outside the image is padding.

    >>> CentreCrop(resize=(256, 256), crop=(224, 224))(512, 1024)
    (32.0, 288.0, 448.0, 448.0)
    >>> CentreCrop(resize=(256, 256), crop=(256, 256), fit="inside")(512, 1024)
    (-256.0, 0.0, 1024.0, 1024.0)
    """

    resize: tuple[float, float]
    crop: tuple[float, float]
    fit: str = "cover"

    def __call__(self, height: int, width: int) -> Region:
        scales = height / self.resize[0], width / self.resize[1]
        if self.fit != "stretch":
            scales = (min(scales),) * 2 if self.fit == "cover" else (max(scales),) * 2
        h, w = self.crop[0] * scales[0], self.crop[1] * scales[1]
        if self.fit != "inside" and self.crop[0] <= self.resize[0] and self.crop[1] <= self.resize[1]:
            h, w = min(h, height), min(w, width)  # rounding
        return (height - h) / 2, (width - w) / 2, h, w
