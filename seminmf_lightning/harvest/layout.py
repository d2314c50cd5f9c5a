"""Where the outputs of a layer lie in an image: which axis holds channels, which tokens are patches."""

from __future__ import annotations

import math
from typing import NamedTuple

from seminmf_lightning.harvest.adapters import Feed

LAYOUTS = ("auto", "channels_first", "channels_last")
ASPECT_TOLERANCE = 0.05
"""Relative difference between the aspect of a grid of patches and that of the image."""


class Layout(NamedTuple):
    """How one layer's outputs are read.

    Maps (n, c, h, w) or (n, h, w, c) have a position per cell; sequences (n, t, c) a position per token, of
    which those after ``prefix`` are patches in raster order.
    """

    channels_last: bool = False
    """Maps are (n, h, w, c)."""
    prefix: int = 0
    """Tokens before the patches, such as [CLS] and registers."""
    grid: tuple[int, int] | None = None
    """Rows and columns of patches; None if the positions have no place in the image."""


def layout_by_shape(shape: tuple[int, ...], feed: Feed, aspect: float, choice: str = "auto") -> Layout:
    """Read a layout off the shape of an output (n, ...).

    Args:
        aspect: height over width of what the network takes.
        choice: the ``layout`` setting, for maps.

    >>> from seminmf_lightning.harvest.adapters import TensorFeed
    >>> layout_by_shape((2, 64, 7, 14), TensorFeed(), aspect=0.5)
    Layout(channels_last=False, prefix=0, grid=(7, 14))
    >>> layout_by_shape((2, 10, 64), TensorFeed(prefix_tokens=1, images=True), aspect=1.0)
    Layout(channels_last=False, prefix=1, grid=(3, 3))
    """
    if len(shape) == 4:
        _, a, b, c = shape
        first, last = abs(math.log(b / c / aspect)), abs(math.log(a / b / aspect))
        channels_last = feed.channels_last if first == last else last < first
        if choice != "auto":
            channels_last = choice == "channels_last"
        return Layout(channels_last, 0, (a, b) if channels_last else (b, c))
    tokens = shape[1]
    # The first layers of some networks have no prefix yet.
    for prefix in dict.fromkeys((feed.prefix_tokens, 0)) if feed.images else ():
        if grid := grid_of(tokens - prefix, aspect):
            return Layout(False, prefix, grid)
    return Layout(False, min(feed.prefix_tokens, tokens))


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
