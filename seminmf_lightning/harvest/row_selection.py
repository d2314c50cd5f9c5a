"""From what a layer returns to rows, each with its origin.

Maps (n, c, h, w) give a row a position, token sequences (n, t, c) a row a token, vectors (n, c) a row an
item.  Padding never becomes a row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.checks import one_of, whole_number
from seminmf_lightning.harvest.adapters import Feed, Item
from seminmf_lightning.harvest.layers import Layer

TOKENS = ("all", "cls", "no_special", "mean", "random")
LAYOUTS = ("auto", "channels_first", "channels_last")


class Rows(NamedTuple):
    """Rows (m, c), and columns (m,) that say where each comes from.

    ``example``; ``window``, the part of a text; ``position``, the token of the window or the place in the
    map; for texts ``start`` and ``stop``, the characters of the token; for pictures ``y``, ``x`` and
    ``height``, ``width`` of the grid of patches.  -1 where there is none, as for [CLS].
    """

    values: Tensor
    origin: dict[str, np.ndarray]

    def take(self, chosen: np.ndarray) -> Rows:
        at = torch.from_numpy(chosen).to(self.values.device)
        return Rows(
            self.values.index_select(0, at), {name: column[chosen] for name, column in self.origin.items()}
        )

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
    """``all``, ``cls`` (the first token), ``no_special`` (neither [CLS] nor the like), ``mean`` (of an item's
    ``no_special``), ``random`` (``number`` of an item's ``no_special``)."""
    number: int | None = None
    """Rows an item, for ``random``."""
    layout: str = "auto"
    """Of maps: ``channels_first``, ``channels_last``; ``auto`` looks which axes have the picture's aspect."""
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("tokens", self.tokens, TOKENS)
        one_of("layout", self.layout, LAYOUTS)
        whole_number("seed", self.seed, 0)
        if (self.tokens == "random") != (self.number is not None):
            raise ValueError(
                f"number is for tokens=random, and needed there; got tokens={self.tokens} number={self.number}"
            )
        if self.number is not None:
            whole_number("number", self.number, 1)

    def rows(self, layer: Layer, output: Tensor, items: Sequence[Item], feed: Feed) -> Rows:
        """Rows of a batch of items, item by item, position by position.

        Raises:
            ValueError: a shape that cannot be read as maps, tokens or vectors of these items.
        """
        shape, is_text = tuple(output.shape), items[0].special is not None
        if output.ndim not in (2, 3, 4) or (output.ndim == 4 and is_text):
            raise ValueError(
                f"layer {layer!s} returns {shape}; rows come from vectors (n, c), sequences (n, t, c) and maps of pictures"
            )
        if len(output) != len(items):
            raise ValueError(
                f"layer {layer!s} returns {shape}: {len(output)} items for a batch of {len(items)}"
            )
        single, grid, first = output.ndim == 2, None, 0
        if output.ndim == 4:
            if self._channels_last(shape, _aspect(items), feed.channels_last):
                grid = (output.shape[1], output.shape[2])
            else:
                grid, output = (output.shape[2], output.shape[3]), output.permute(0, 2, 3, 1)
            output = output.flatten(1, 2)
        elif single:
            output = output[:, None]
        elif not is_text:
            grid, first = _grid(output.shape[1], feed, _aspect(items))
        n, t, _ = output.shape
        usable, ordinary = np.ones((n, t), dtype=bool), np.ones((n, t), dtype=bool)
        if is_text and not single:
            longest = max(item.tokens for item in items)
            if t != longest:
                raise ValueError(
                    f"layer {layer!s} returns {shape}: {t} positions for a batch of {longest} tokens"
                )
            for number, item in enumerate(items):
                assert item.special is not None
                usable[number, item.tokens :] = False
                ordinary[number, : item.tokens] = ~item.special.numpy()
        ordinary[:, :first] = False
        chosen = usable if single else self._choose(layer, usable, ordinary & usable, items)
        if self.tokens == "mean" and not single:
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
            values = output.reshape(n * t, -1).index_select(
                0, torch.from_numpy(item_of * t + position).to(output.device)
            )
        where = np.full(len(position), -1) if single else position
        return Rows(values, _columns(items, item_of, where, is_text, grid, first))

    def _channels_last(self, shape: tuple[int, ...], aspect: float, usual: bool) -> bool:
        """Whether a map is (n, h, w, c): its height and width are as those of the picture, its channels are
        not."""
        if self.layout != "auto":
            return self.layout == "channels_last"
        _, a, b, c = shape
        first, last = abs(math.log(b / c / aspect)), abs(math.log(a / b / aspect))
        return usual if first == last else last < first

    def _choose(
        self, layer: Layer, usable: np.ndarray, ordinary: np.ndarray, items: Sequence[Item]
    ) -> np.ndarray:
        if self.tokens == "all":
            return usable
        if self.tokens == "cls":
            if ordinary[:, 0].any():
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


def _aspect(items: Sequence[Item]) -> float:
    """Height over width of what the network is shown; 1 where it is no picture."""
    shape = next(iter(items[0].inputs.values())).shape
    return shape[-2] / shape[-1] if len(shape) == 3 else 1.0


def _grid(tokens: int, feed: Feed, aspect: float) -> tuple[tuple[int, int] | None, int]:
    """Rows and columns of patches in a sequence, and the tokens before them: those of the feed, or none in an
    early layer."""
    for first in dict.fromkeys((feed.prefix_tokens, 0)) if feed.pictures else ():
        patches = tokens - first
        height = round((max(patches, 0) * aspect) ** 0.5)
        if height > 0 and patches % height == 0 and abs(height / (patches // height) / aspect - 1) < 0.05:
            return (height, patches // height), first
    return None, min(feed.prefix_tokens, tokens)


def _columns(
    items: Sequence[Item],
    item_of: np.ndarray,
    position: np.ndarray,
    is_text: bool,
    grid: tuple[int, int] | None,
    first: int,
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
