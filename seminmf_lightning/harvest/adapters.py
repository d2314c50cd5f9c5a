"""From an example (a picture, a text, a tensor) to what a network is called with.

One example makes one or more *items*, rows of a network's batch: a long text is cut into windows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seminmf_lightning.harvest.inputs import Unreadable


@dataclass
class Item:
    """One row of a network's batch, without the batch axis."""

    example: int
    window: int
    """Which part of its example."""
    inputs: dict[str, Tensor]
    special: Tensor | None = None
    """(t,) bool: tokens that stand for no text, such as [CLS]."""
    spans: Tensor | None = None
    """(t, 2) int32: the characters of each token in its text."""

    @property
    def tokens(self) -> int:
        return 0 if self.special is None else len(self.special)


class Feed(ABC):
    """What a model is fed with."""

    prefix_tokens: int = 0
    """Tokens before the patches of a picture ([CLS], registers)."""
    pictures: bool = False
    """Whether the network is shown pictures, so that sequences may be grids of patches."""
    channels_last: bool = False
    """Whether maps are usually (n, h, w, c) where their shape does not tell."""
    pool: int = 1
    """Batches of items that are sorted by length together, so that little is padded."""

    @abstractmethod
    def items(self, example: int, content: Any) -> list[Item]:
        """Items of an example."""

    @abstractmethod
    def call(self, network: nn.Module, items: list[Item], device: torch.device) -> None:
        """Run the network on a batch of items."""

    @abstractmethod
    def record(self, content: Any) -> dict[str, Any]:
        """What is kept of an example, so that a person can find a row in it again."""


class ImageFeed(Feed):
    """Pictures through the model's own preprocessing.

    Args:
        transform: from a PIL picture (RGB) to a tensor (3, h, w).
        region: from the height and width of a picture to the part of it that the network sees: top, left,
            height, width.
        keyword: name of the network's argument; None: its first.
    """

    pictures = True

    def __init__(
        self, transform: Callable[[Any], Tensor], region: Callable[[int, int], tuple[float, float, float, float]], *,
        keyword: str | None = None, prefix_tokens: int = 0,
    ) -> None:  # fmt: skip
        self.transform, self.region, self.keyword, self.prefix_tokens = (
            transform,
            region,
            keyword,
            prefix_tokens,
        )

    def items(self, example: int, content: Any) -> list[Item]:
        try:
            return [Item(example, 0, {"picture": self.transform(content)})]
        except (ValueError, RuntimeError, OSError) as error:
            raise Unreadable(f"its picture of {content.size} cannot be preprocessed ({error})") from error

    def call(self, network: nn.Module, items: list[Item], device: torch.device) -> None:
        batch = stacked([item.inputs["picture"] for item in items]).to(device)
        batch = batch.to(next((p.dtype for p in network.parameters() if p.is_floating_point()), batch.dtype))
        if self.keyword is None:
            network(batch)
        else:
            network(**{self.keyword: batch})

    def record(self, content: Any) -> dict[str, Any]:
        width, height = content.size
        return {"size": [height, width], "region": list(self.region(height, width))}


class TensorFeed(Feed):
    """Tensors as they are; the network is called with a batch of them."""

    def __init__(self, prefix_tokens: int = 0, *, pictures: bool = False) -> None:
        self.prefix_tokens, self.pictures = prefix_tokens, pictures

    def items(self, example: int, content: Tensor) -> list[Item]:
        return [Item(example, 0, {"tensor": content})]

    def call(self, network: nn.Module, items: list[Item], device: torch.device) -> None:
        network(stacked([item.inputs["tensor"] for item in items]).to(device))

    def record(self, content: Tensor) -> dict[str, Any]:
        return {"shape": list(content.shape)}


def stacked(tensors: list[Tensor]) -> Tensor:
    """One batch (n, ...) of tensors of one shape."""
    if len(shapes := {tuple(one.shape) for one in tensors}) > 1:
        raise ValueError(
            f"pictures of different sizes cannot be one batch: {', '.join(map(str, sorted(shapes)))}; "
            "resize them in the preprocessing, or set batch_size=1"
        )
    return torch.stack(tensors)


def whole_picture(height: int, width: int) -> tuple[float, float, float, float]:
    """The region of preprocessing that resizes without cropping."""
    return 0.0, 0.0, float(height), float(width)


@dataclass(frozen=True)
class CentreCrop:
    """The region of preprocessing that resizes a picture, aspect kept, to cover ``resize`` and crops ``crop``
    centrally.

    Both are (height, width); for a square ``resize`` it is the shorter side that gets its length.
    """

    resize: tuple[float, float]
    crop: tuple[float, float]

    def __call__(self, height: int, width: int) -> tuple[float, float, float, float]:
        scale = min(height / self.resize[0], width / self.resize[1])
        h, w = min(self.crop[0] * scale, height), min(self.crop[1] * scale, width)
        return (height - h) / 2, (width - w) / 2, h, w
