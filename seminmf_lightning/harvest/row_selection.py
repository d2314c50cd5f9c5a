"""Select rows from a layer's output, each with its origin.

Maps (n, c, h, w) give one row per cell, sequences (n, t, c) one per token, vectors (n, c) one per item.
Padding never becomes a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.checks import one_of, whole_number
from seminmf_lightning.harvest.adapters import Feed, Item
from seminmf_lightning.harvest.layers import Layer
from seminmf_lightning.harvest.layout import LAYOUTS, Layout, layout_by_shape

TOKENS = ("all", "cls", "no_special", "mean", "random")


class Rows(NamedTuple):
    """Rows (m, c), and columns (m,) with the origin of each.

    Columns: ``example``; ``window``, the part of a text; ``position``, the token of the window or the cell of
    the map; for texts ``start`` and ``stop``, the characters of the token; for images ``y``, ``x`` and
    ``height``, ``width``, the patch and its grid. -1 where there is none, for example for [CLS].
    """

    values: Tensor
    origin: dict[str, np.ndarray]

    def take(self, indices: np.ndarray) -> Rows:
        """Return the rows with these indices."""
        at = torch.from_numpy(indices).to(self.values.device)
        origin = {name: column[indices] for name, column in self.origin.items()}
        return Rows(self.values.index_select(0, at), origin)

    @staticmethod
    def join(parts: Sequence[Rows]) -> Rows:
        """Concatenate rows of one layer."""
        if len(parts) == 1:
            return parts[0]
        return Rows(
            torch.cat([part.values for part in parts]),
            {name: np.concatenate([part.origin[name] for part in parts]) for name in parts[0].origin},
        )


@dataclass(frozen=True)
class Selector:
    """Chooses which positions of an item become rows.

    Raises:
        TypeError, ValueError: a bad setting; the message names it and says what is accepted.
    """

    tokens: str = "no_special"
    """``all``; ``cls``, the first token; ``no_special``, all but [CLS] and the like; ``mean``, the mean over
    an item's ``no_special``; ``random``, ``number`` of an item's ``no_special``."""
    number: int | None = None
    """Rows per item, for ``random``."""
    layout: str = "auto"
    """Axes of maps: ``channels_first``, ``channels_last``; ``auto`` takes those with the image's aspect."""
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("tokens", self.tokens, TOKENS)
        one_of("layout", self.layout, LAYOUTS)
        whole_number("seed", self.seed, 0)
        if (self.tokens == "random") != (self.number is not None):
            raise ValueError(
                "tokens=random needs number, and only tokens=random takes it; "
                f"got tokens={self.tokens} number={self.number}"
            )
        if self.number is not None:
            whole_number("number", self.number, 1)

    def rows(
        self, layer: Layer, output: Tensor, items: Sequence[Item], feed: Feed, layout: Layout | None = None
    ) -> Rows:
        """Return the rows of a batch of items, item by item, position by position.

        ``layout`` is that of the layer; None: guess from the shape of ``output``.

        Raises:
            ValueError: the shape cannot be read as maps, tokens or vectors of these items.
        """
        shape, is_text = tuple(output.shape), items[0].special is not None
        if output.ndim not in (2, 3, 4) or (output.ndim == 4 and is_text):
            raise ValueError(
                f"layer {layer!s} gives {shape}; rows come from vectors (n, c), sequences (n, t, c) "
                "and maps of images"
            )
        if len(output) != len(items):
            raise ValueError(
                f"layer {layer!s} gives {shape} for a batch of {len(items)} items: its first axis "
                f"{_first_axis(shape, items)}. Choose a layer whose first axis is the batch (list=true)"
            )
        if is_text:
            layout, aspect = Layout(), 1.0
        else:
            aspect = _aspect(items)
            layout = layout or layout_by_shape(shape, feed, aspect, self.layout)
        grid = layout.grid(shape, aspect)
        single = output.ndim == 2 or (feed.images and output.ndim == 3 and shape[1] == 1)
        if output.ndim == 2:
            output = output[:, None]
        elif output.ndim == 4:
            output = (output if layout.channels_last else output.permute(0, 2, 3, 1)).flatten(1, 2)
        usable, ordinary = _positions(layer, shape, output.shape[1], items, layout)
        chosen = usable if single else self._choose(layer, usable, ordinary, items)
        if self.tokens == "mean" and not single:
            return _means(output, chosen, items)
        n, t, _ = output.shape
        item_of, position = np.nonzero(chosen)
        flat = output.reshape(n * t, -1)
        if chosen.all():
            values = flat.clone()
        else:
            values = flat.index_select(0, torch.from_numpy(item_of * t + position).to(output.device))
        position = np.full(len(position), -1) if single else position
        return Rows(values, _columns(items, item_of, position, grid, layout.prefix))

    def _choose(
        self, layer: Layer, usable: np.ndarray, ordinary: np.ndarray, items: Sequence[Item]
    ) -> np.ndarray:
        """Return the positions (n, t) that become rows, or for ``mean`` are averaged."""
        if self.tokens == "all":
            return usable
        if self.tokens == "cls":
            if ordinary[:, 0].any():
                raise ValueError(
                    f"layer {layer!s}: tokens=cls, but its first position is not a [CLS] token; "
                    "use mean, all or no_special"
                )
            first = np.zeros_like(usable)
            first[:, 0] = usable[:, 0]
            return first
        if self.tokens == "random":
            assert self.number is not None
            drawn = np.zeros_like(ordinary)
            for row, item in enumerate(items):
                positions = np.flatnonzero(ordinary[row])
                if len(positions) > self.number:
                    generator = np.random.default_rng([self.seed, item.example, item.window])
                    positions = generator.choice(positions, self.number, replace=False)
                drawn[row, positions] = True
            return drawn
        return ordinary


def _aspect(items: Sequence[Item]) -> float:
    """Return height over width of the network's input; 1 if it is not an image."""
    shape = next(iter(items[0].inputs.values())).shape
    return shape[-2] / shape[-1] if len(shape) == 3 else 1.0


def _first_axis(shape: tuple[int, ...], items: Sequence[Item]) -> str:
    """Say what the first axis of an output is if it is not the batch."""
    longest = max(item.tokens for item in items)
    if shape[:2] == (longest, len(items)):
        return "is the tokens, and the second one the items, as in XLNet and many LSTMs"
    if shape[0] == longest * len(items):
        return "holds the tokens of all items, as in routers and experts"
    return "is not the batch, as where windows or heads are folded into it"


def _positions(
    layer: Layer, shape: tuple[int, ...], t: int, items: Sequence[Item], layout: Layout
) -> tuple[np.ndarray, np.ndarray]:
    """Return masks (n, t): positions that are not padding, and those of them that are not special tokens."""
    usable, ordinary = np.ones((len(items), t), dtype=bool), np.ones((len(items), t), dtype=bool)
    if items[0].special is not None and len(shape) > 2:
        longest = max(item.tokens for item in items)
        if t != longest:
            raise ValueError(
                f"layer {layer!s} gives {shape}: {t} positions for a batch of {longest} tokens, so that no "
                "row has a token: the network pads, pools or adds some. Choose another layer or model"
            )
        for row, item in enumerate(items):
            assert item.special is not None
            usable[row, item.tokens :] = False
            ordinary[row, : item.tokens] = ~item.special.numpy()
    ordinary[:, : layout.prefix] = False
    ordinary[:, t - layout.suffix :] = False
    return usable, ordinary & usable


def _means(output: Tensor, chosen: np.ndarray, items: Sequence[Item]) -> Rows:
    """Return one row per item: the mean over its chosen positions, in float32."""
    weights = torch.from_numpy(chosen).to(output.device)
    kept = np.flatnonzero(chosen.any(axis=1))
    at = torch.from_numpy(kept).to(output.device)
    sums = torch.einsum("ntc,nt->nc", output.float(), weights.float())[at]
    values = (sums / weights.sum(dim=1)[at, None]).to(output.dtype)
    return Rows(values, _columns(items, kept, np.full(len(kept), -1), None, 0))


def _columns(
    items: Sequence[Item],
    item_of: np.ndarray,
    position: np.ndarray,
    grid: tuple[int, int] | None,
    prefix: int,
) -> dict[str, np.ndarray]:
    """Return the origin of rows: row i is position ``position[i]`` of item ``item_of[i]``."""
    columns = {
        "example": np.array([item.example for item in items], dtype=np.int64)[item_of],
        "window": np.array([item.window for item in items], dtype=np.int32)[item_of],
        "position": position.astype(np.int32),
    }
    if items[0].special is not None:
        spans = np.full((len(item_of), 2), -1, dtype=np.int32)
        offsets = np.cumsum([0] + [item.tokens for item in items])
        is_token = position >= 0
        flat = torch.cat([torch.where(item.special[:, None], -1, item.spans) for item in items]).numpy()  # type: ignore[index,arg-type]
        spans[is_token] = flat[offsets[item_of[is_token]] + position[is_token]]
        return columns | {"start": spans[:, 0].copy(), "stop": spans[:, 1].copy()}
    height, width = grid or (-1, -1)
    patch = position - prefix
    is_patch = (position >= prefix) & (patch < height * width) & (grid is not None)
    return columns | {
        "y": np.where(is_patch, patch // width, -1).astype(np.int16),
        "x": np.where(is_patch, patch % width, -1).astype(np.int16),
        "height": np.full(len(position), height, dtype=np.int16),
        "width": np.full(len(position), width, dtype=np.int16),
    }
