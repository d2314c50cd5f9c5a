"""Layout of a layer's outputs in the image: which axis holds the channels, which tokens are patches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from seminmf_lightning.harvest.adapters import Feed

LAYOUTS = ("auto", "channels_first", "channels_last")
WITHOUT_PATCHES = "its rows are not patches of an image"
"""Reason for vectors, and for inputs other than images."""
ASPECT_TOLERANCE = 0.05
"""Largest relative difference between the aspect of a grid of patches and that of the image."""


class Layout(NamedTuple):
    """How one layer's outputs are read, for images of any size.

    Maps (n, c, h, w) or (n, h, w, c) have a position per cell. Sequences (n, t, c) have a position per token:
    ``prefix`` special tokens, patches in raster order, ``suffix`` special tokens.
    """

    channels_last: bool = False
    """Maps are (n, h, w, c)."""
    prefix: int = 0
    """Tokens before the patches, such as [CLS] and registers."""
    suffix: int = 0
    """Tokens after the patches, such as detection tokens."""
    unplaced: str | None = WITHOUT_PATCHES
    """Why rows have no position in the image; None if they have one."""

    def plain(self) -> dict[str, Any]:
        """Return the layout in the form of a manifest."""
        layout = self._asdict()
        return layout if self.unplaced is not None else {k: v for k, v in layout.items() if k != "unplaced"}

    @staticmethod
    def from_plain(layout: Mapping[str, Any]) -> Layout:
        """Return the layout from its form in a manifest.

        >>> Layout.from_plain(Layout(prefix=1, unplaced=None).plain())
        Layout(channels_last=False, prefix=1, suffix=0, unplaced=None)
        """
        return Layout(**{"unplaced": None, **layout})

    def grid(self, shape: tuple[int, ...], aspect: float) -> tuple[int, int] | None:
        """Return the rows and columns of patches in outputs of this shape; None if rows have no position.

        >>> Layout(prefix=1, unplaced=None).grid((2, 197, 64), aspect=1.0)
        (14, 14)
        """
        if self.unplaced is not None:
            return None
        if len(shape) == 4:
            return (shape[1], shape[2]) if self.channels_last else (shape[2], shape[3])
        return grid_of(shape[1] - self.prefix - self.suffix, aspect)


def layout_by_shape(shape: tuple[int, ...], feed: Feed, aspect: float, choice: str = "auto") -> Layout:
    """Guess the layout from the shape of an output (n, ...); only a probe can confirm it.

    Args:
        aspect: height over width of the network's input.
        choice: the ``layout`` setting, for maps.

    >>> from seminmf_lightning.harvest.adapters import TensorFeed
    >>> layout_by_shape((2, 64, 7, 14), TensorFeed(), aspect=0.5)
    Layout(channels_last=False, prefix=0, suffix=0, unplaced=None)
    >>> layout_by_shape((2, 10, 64), TensorFeed(prefix_tokens=1, images=True), aspect=1.0)
    Layout(channels_last=False, prefix=1, suffix=0, unplaced=None)
    """
    if len(shape) == 4:
        _, a, b, c = shape
        first, last = abs(math.log(b / c / aspect)), abs(math.log(a / b / aspect))
        channels_last = feed.channels_last if first == last else last < first
        if choice != "auto":
            channels_last = choice == "channels_last"
        return Layout(channels_last, unplaced=None)
    if len(shape) != 3 or (feed.images and shape[1] == 1):  # one vector per image, such as [CLS] alone
        return Layout()
    if not feed.images:
        return Layout(prefix=min(feed.prefix_tokens, shape[1]))
    # The first layers of some networks have no prefix yet.
    for prefix in dict.fromkeys((feed.prefix_tokens, 0)):
        if grid_of(shape[1] - prefix, aspect):
            return Layout(prefix=prefix, unplaced=None)
    reason = f"{shape[1]} tokens do not form a grid with the aspect of the image"
    return Layout(prefix=min(feed.prefix_tokens, shape[1]), unplaced=reason)


def grid_of(patches: int, aspect: float) -> tuple[int, int] | None:
    """Return the rows and columns of a grid of ``patches`` with the image's aspect, or None.

    >>> grid_of(30, 5 / 6), grid_of(31, 1.0)
    ((5, 6), None)
    """
    height = round((max(patches, 0) * aspect) ** 0.5)
    if height > 0 and patches % height == 0:
        width = patches // height
        if abs(height / width / aspect - 1) < ASPECT_TOLERANCE:
            return height, width
    return None
