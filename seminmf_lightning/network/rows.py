"""Activations of a layer as rows (n, d), and back."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

LAYOUTS = ("auto", "channels_first", "channels_last")


class RowsOf(NamedTuple):
    """Rows of one tensor of activations."""

    values: Tensor
    """(..., d): features on the last axis."""
    channels_first: bool

    def restore(self, rows: Tensor) -> Tensor:
        """Return rows (..., d) in the order of axes of the activations."""
        return rows.movedim(-1, 1) if self.channels_first else rows


def rows_of(x: Tensor, d: int, layout: str, layer: str) -> RowsOf:
    """Return activations with the features last: maps (n, d, h, w) are turned, everything else is (..., d).

    Raises:
        ValueError: no axis of d features where they should be, or two.

    >>> import torch
    >>> rows_of(torch.zeros(2, 8, 5, 5), 8, "auto", "conv").values.shape
    torch.Size([2, 5, 5, 8])
    """
    shape = tuple(x.shape)
    first, last = x.ndim == 4 and shape[1] == d, shape[-1] == d
    if layout == "auto" and first and last:
        raise ValueError(
            f"layer {layer} has activations {shape} with {d} features on the second axis or the last: "
            "attach(..., layout='channels_first'), or 'channels_last'"
        )
    if layout != "auto":
        first, last = first and layout == "channels_first", last and layout == "channels_last"
    if not first and not last:
        width = shape[1] if layout == "channels_first" and x.ndim == 4 else shape[-1]
        raise ValueError(
            f"layer {layer} has activations {shape}, {width} features wide, but the dictionary has {d}: "
            "give the layer that it was learned from"
        )
    return RowsOf(x.movedim(1, -1) if first else x, first)
