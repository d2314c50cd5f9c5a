"""From what a layer returns to rows, each with its origin.

Maps (n, c, h, w) give a row a position, token sequences (n, t, c) a row a token, vectors (n, c) a row an item.  Padding never
becomes a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.checks import one_of, whole_number
from seminmf_lightning.harvest.feeds import Item
from seminmf_lightning.harvest.layers import Layer

TOKENS = ("all", "cls", "no_special", "mean", "random")
LAYOUTS = ("auto", "channels_first", "channels_last")


class Rows(NamedTuple):
    """Rows (m, c), and columns (m,) that say where each comes from.

    ``example``; ``window``, the part of a text; ``position``, the token of the window or the place in the map; for texts
    ``start`` and ``stop``, the characters of the token; for pictures ``y``, ``x`` and ``height``, ``width`` of the grid of
    patches.  -1 where there is none, as for [CLS].
    """

    values: Tensor
    origin: dict[str, np.ndarray]

    def take(self, chosen: np.ndarray) -> Rows:
        at = torch.from_numpy(chosen).to(self.values.device)
        return Rows(self.values.index_select(0, at), {name: column[chosen] for name, column in self.origin.items()})

    @staticmethod
    def join(parts: Sequence[Rows]) -> Rows:
        if len(parts) == 1:
            return parts[0]
        names = parts[0].origin
        return Rows(
            torch.cat([part.values for part in parts]),
            {name: np.concatenate([part.origin[name] for part in parts]) for name in names},
        )


@dataclass(frozen=True)
class Selector:
    """Which positions of an item become rows."""

    tokens: str = "no_special"
    """``all``, ``cls`` (the first token), ``no_special`` (neither [CLS] nor the like), ``mean`` (of an item's ``no_special``),
    ``random`` (``number`` of an item's ``no_special``)."""
    number: int | None = None
    """Rows an item, for ``random``."""
    layout: str = "auto"
    """Of 4-D outputs: ``channels_first``, ``channels_last``; ``auto`` takes the first."""
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("tokens", self.tokens, TOKENS)
        one_of("layout", self.layout, LAYOUTS)
        if (self.tokens == "random") != (self.number is not None):
            raise ValueError(f"number is for tokens=random, and needed there; got tokens={self.tokens} number={self.number}")
        if self.number is not None:
            whole_number("number", self.number, 1)

    def rows(self, layer: Layer, output: Tensor, items: Sequence[Item], prefix: int = 0, aspect: float = 1.0) -> Rows:
        """Rows of a batch of items, item by item, position by position.

        Args:
            output: what the layer returned for ``items``.
            prefix: tokens before the patches of a picture.
            aspect: height of the network's picture over its width.

        Raises:
            ValueError: a shape that cannot be read as maps, tokens or vectors of these items.
        """
        is_text = items[0].special is not None
        grid: tuple[int, int] | None = None
        if output.ndim == 4:
            if self.layout != "channels_last":
                output = output.permute(0, 2, 3, 1)
            grid, first = (output.shape[1], output.shape[2]), 0
            output = output.flatten(1, 2)
        elif output.ndim == 3:
            grid, first = (None, 0) if is_text else _grid(output.shape[1], prefix, aspect)
        elif output.ndim == 2:
            output, first = output[:, None], 0
        else:
            raise ValueError(f"layer {layer!s} returns a {output.ndim}-D tensor {tuple(output.shape)}; rows need 2 to 4 axes")
        if len(output) != len(items):
            raise ValueError(f"layer {layer!s} returns {len(output)} items for a batch of {len(items)}: {tuple(output.shape)}")
        n, t, _ = output.shape
        whole = is_text and t > 1  # a row a token; a pooler gives one a text
        usable, ordinary = np.ones((n, t), dtype=bool), np.ones((n, t), dtype=bool)
        if whole:
            longest = max(item.tokens for item in items)
            if t != longest:
                raise ValueError(
                    f"layer {layer!s} returns {t} positions for a batch of {longest} tokens: {tuple(output.shape)}"
                )
            for number, item in enumerate(items):
                assert item.special is not None
                usable[number, item.tokens :] = False
                ordinary[number, : item.tokens] = ~item.special.numpy()
        elif output.ndim == 3 and grid is not None:
            ordinary[:, :first] = False
        chosen = self._choose(layer, usable, ordinary & usable, items)
        if self.tokens == "mean" and t > 1:
            weights = torch.from_numpy(chosen).to(output.device)
            kept = np.flatnonzero(chosen.any(axis=1))
            at = torch.from_numpy(kept).to(output.device)
            sums = torch.einsum("ntc,nt->nc", output.float(), weights.float())[at]
            values = (sums / weights.sum(dim=1)[at, None]).to(output.dtype)
            return Rows(values, _columns(items, kept, np.full(len(kept), -1), is_text, None, 0))
        item_of, position = np.nonzero(chosen)
        if chosen.all():
            values = output.reshape(n * t, -1).clone()
        else:
            values = output.reshape(n * t, -1).index_select(0, torch.from_numpy(item_of * t + position).to(output.device))
        where = position if whole or grid is not None or not is_text else np.full(len(position), -1)
        return Rows(values, _columns(items, item_of, where, is_text, grid, first))

    def _choose(self, layer: Layer, usable: np.ndarray, ordinary: np.ndarray, items: Sequence[Item]) -> np.ndarray:
        if self.tokens == "all":
            return usable
        if self.tokens == "cls":
            if usable.shape[1] > 1 and ordinary[:, 0].all():
                raise ValueError(
                    f"layer {layer!s}: tokens=cls, but its first position is no [CLS]; use mean, all or no_special"
                )
            first = np.zeros_like(usable)
            first[:, 0] = usable[:, 0]
            return first
        if self.tokens == "random":
            assert self.number is not None
            drawn = np.zeros_like(ordinary)
            for number, item in enumerate(items):
                places = np.flatnonzero(ordinary[number])
                if len(places) > self.number:
                    generator = np.random.default_rng([self.seed, item.example, item.window])
                    places = generator.choice(places, self.number, replace=False)
                drawn[number, places] = True
            return drawn
        return ordinary


def _grid(tokens: int, prefix: int, aspect: float) -> tuple[tuple[int, int] | None, int]:
    """Rows and columns of patches in a sequence, and the tokens before them."""
    for first in dict.fromkeys((prefix, 0, 1)):
        patches = tokens - first
        height = round((max(patches, 0) * aspect) ** 0.5)
        if height > 0 and patches % height == 0 and abs(height / (patches // height) / aspect - 1) < 0.05:
            return (height, patches // height), first
    return None, 0


def _columns(
    items: Sequence[Item], item_of: np.ndarray, position: np.ndarray, is_text: bool, grid: tuple[int, int] | None, first: int
) -> dict[str, np.ndarray]:
    example = np.array([item.example for item in items], dtype=np.int64)[item_of]
    window = np.array([item.window for item in items], dtype=np.int32)[item_of]
    columns = {"example": example, "window": window, "position": position.astype(np.int32)}
    if is_text:
        spans = np.full((len(item_of), 2), -1, dtype=np.int32)
        offsets = np.cumsum([0] + [item.tokens for item in items])
        known = position >= 0
        flat = torch.cat([torch.where(item.special[:, None], -1, item.spans) for item in items]).numpy()  # type: ignore[index,arg-type]
        spans[known] = flat[offsets[item_of[known]] + position[known]]
        columns |= {"start": spans[:, 0].copy(), "stop": spans[:, 1].copy()}
    else:
        patch = position - first
        known = (patch >= 0) & (position >= 0) & (grid is not None)
        height, width = grid or (1, 1)
        columns |= {
            "y": np.where(known, patch // width, -1).astype(np.int16),
            "x": np.where(known, patch % width, -1).astype(np.int16),
            "height": np.full(len(position), height if grid else -1, dtype=np.int16),
            "width": np.full(len(position), width if grid else -1, dtype=np.int16),
        }
    return columns
