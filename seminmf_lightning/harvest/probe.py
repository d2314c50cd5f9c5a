"""Find where a layer's rows lie in an image: brighten one patch at a time and see which position reacts.

For an output x_i (c,) at position i, the reaction to patch k is d_ki = |x_i(patch k) - x_i(neutral image)|. A
position that reacts to every patch, such as [CLS], carries no information, so positions are compared by
d_ki^2 / sum_k d_ki: the reaction times the share of it that belongs to this patch. Under the right layout the
strongest position of patch k is the cell that holds it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from seminmf_lightning.harvest.adapters import Item
from seminmf_lightning.harvest.layers import Capture, Layer
from seminmf_lightning.harvest.layout import Layout, grid_of, layout_by_shape
from seminmf_lightning.harvest.models import Loaded

CENTRES = (
    (0.14, 0.66), (0.30, 0.21), (0.42, 0.87), (0.61, 0.37),
    (0.73, 0.93), (0.88, 0.52), (0.24, 0.45), (0.79, 0.11),
)  # fmt: skip
"""Centres of the bright patches (y, x), as shares of height and width: no two share a row or a column."""
SIDE = 1 / 14
"""Side of a bright patch, as a share of the image's."""
MAX_PREFIX, MAX_SUFFIX = 16, 112
"""Most special tokens before the patches (registers) and after them (YOLOS has 100 detection tokens)."""
ACCEPTED_ERROR = {3: 1.0, 4: 1.5}
"""Cells between bright patches and strongest positions, on average, for sequences and for maps. In some 50
networks of timm with random weights right layouts reach 0.8 (0.95 for maps; convolutions without padding add
to it), wrong ones start at 1.0 for a sequence shifted by a token and at 3.5 for anything else."""
ACCEPTED_STRETCH, ACCEPTED_IF_STRETCHED = 2.0, 0.8
"""Ratio of the aspects of grid and image beyond which the error must be smaller, as for heads x tokens."""
ACCEPTED_CORRELATION = 0.8
"""Between rows (columns) of the patches and of the strongest positions."""
MARGIN = 0.3
"""Among layouts this close to the best, the one with the fewest special tokens wins, prefix before suffix."""
MIN_REACTIONS = 4
"""Fewest bright patches that must change some row."""
EVEN = 4.0
"""Ratio of strongest to median reaction below which every position depends on the whole image."""


def probe_layouts(
    loaded: Loaded, item: Item, layers: Sequence[Layer], choice: str, device: torch.device, batch_size: int
) -> dict[str, Layout]:
    """Return the layout of each layer for a network of images or maps, from the outputs for nine images.

    Args:
        item: any item of the inputs, for the shape and the range of values.
        choice: the ``layout`` setting: which axis of maps holds the channels.

    Raises:
        ValueError: a layer returns maps that are not maps of the image, and ``choice`` is ``auto``; or its
            first axis is not the batch.
    """
    (name, image), *_ = item.inputs.items()
    is_image = image.ndim == 3 and not image.is_complex()
    images = probe_images(image) if is_image else image[None]
    items = [Item(item.example, 0, item.inputs | {name: one}) for one in images]
    outputs = {layer: _Distances() for layer in layers}
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]

        def keep(layer: Layer, output: Tensor, count: int = len(batch)) -> None:
            if output.ndim == 0 or len(output) != count:
                raise ValueError(
                    f"layer {layer!s} gives {tuple(output.shape)} for a batch of {count} items: its first "
                    "axis is not the batch, as where windows or heads are folded into it. Choose another "
                    "layer (list=true)"
                )
            outputs[layer].add(output)

        def forward(batch: list[Item] = batch) -> None:
            loaded.feed.call(loaded.network, batch, device)

        Capture(loaded.network, layers, keep).run(forward)
    aspect = image.shape[-2] / image.shape[-1] if image.ndim > 1 else 1.0
    layouts = {}
    for layer, distances in outputs.items():
        shape = distances.shape
        guess = layout_by_shape(shape, loaded.feed, aspect, choice)
        if guess.unplaced is None and not is_image:
            guess = guess._replace(unplaced=f"the network takes {tuple(image.shape)}, not an image (c, h, w)")
        elif is_image and (len(shape) == 4 or (len(shape) == 3 and loaded.feed.images)):
            guess = _confirm(layer, distances, guess, aspect, choice)
        layouts[str(layer)] = guess
    return layouts


class _Distances:
    """Distances of one layer's outputs for bright patches from its output for the neutral image."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self._neutral: Tensor | None = None
        self._parts: dict[bool, list[Tensor]] = {False: [], True: []}

    def add(self, output: Tensor) -> None:
        """Add the outputs for some images; the first of all is the neutral one."""
        self.shape, output = tuple(output.shape), output.float()
        if self._neutral is None:
            self._neutral = output[:1].clone()
        if output.ndim in (3, 4):
            for channels_last in {False, output.ndim == 4}:
                axis = 1 if output.ndim == 4 and not channels_last else -1
                distance = (output - self._neutral).norm(dim=axis).flatten(1).cpu()
                self._parts[channels_last].append(distance)

    def scores(self, channels_last: bool) -> Tensor:
        """d_ki^2 / sum_k d_ki (k, i), the reaction of position i to patch k."""
        d = torch.cat(self._parts[channels_last])[1:].nan_to_num(0.0, 0.0, 0.0)
        return d * d / d.sum(dim=0).clamp(min=torch.finfo(torch.float32).tiny)


class _Candidate(NamedTuple):
    """A layout, its grid, the strongest position of each patch (-1: none reacts), and their mean distance."""

    layout: Layout
    grid: tuple[int, int]
    strongest: Tensor
    error: float


def _confirm(layer: Layer, distances: _Distances, guess: Layout, aspect: float, choice: str) -> Layout:
    """Return the layout that fits the reactions best; ``guess`` without positions where none fits."""
    shape = distances.shape
    scores = {last: distances.scores(last) for last in {False, len(shape) == 4}}
    reacts = scores[False].amax(dim=1) > 0
    if int(reacts.sum()) < MIN_REACTIONS:
        return guess._replace(unplaced="it does not react to a bright patch of the image")
    candidates = []
    for layout, grid in _layouts(shape, aspect, choice):
        strongest = torch.where(reacts, scores[layout.channels_last].argmax(dim=1), -1)
        error = position_error(strongest, grid, layout.prefix)
        candidates.append(_Candidate(layout, grid, strongest, error))
    if candidates:
        least = min(candidate.error for candidate in candidates)
        best = min(
            (candidate for candidate in candidates if candidate.error <= least + MARGIN),
            key=lambda one: (one.layout.prefix + one.layout.suffix, one.layout.suffix, one.error),
        )
        if best.error <= _accepted_error(len(shape), best.grid, aspect) and _follows(best):
            return best.layout
    ratio = scores[guess.channels_last].amax(dim=1) / scores[guess.channels_last].median(dim=1).values
    if bool((ratio < EVEN).all()):
        return guess._replace(unplaced="every position reacts alike, wherever a bright patch lies")
    if len(shape) == 4 and choice == "auto":
        raise ValueError(
            f"layer {layer!s} gives {shape[1:]} per image, of which neither the last two axes nor the "
            "first two are those of the image: a bright patch moves other positions than its own, as in "
            "attention maps, heads, blocks and windows. Choose another layer (list=true); or set "
            "layout=channels_first or layout=channels_last, which gives rows without a position in the image"
        )
    moved = "a bright patch of the image moves other rows than its own"
    return guess._replace(unplaced=guess.unplaced or moved)


def _accepted_error(ndim: int, grid: tuple[int, int], aspect: float) -> float:
    stretched = abs(math.log(grid[0] / grid[1] / aspect)) > math.log(ACCEPTED_STRETCH)
    # Wrong layouts have smaller errors on a small grid.
    return min(ACCEPTED_IF_STRETCHED if stretched else ACCEPTED_ERROR[ndim], 0.25 + 0.15 * max(grid))


def _follows(candidate: _Candidate) -> bool:
    """Return whether the strongest positions move down and right with the bright patches."""
    reacts = candidate.strongest >= 0
    cells, (_, width) = candidate.strongest[reacts] - candidate.layout.prefix, candidate.grid
    axes = torch.div(cells, width, rounding_mode="floor"), cells % width
    for length, row_or_column, centres in zip(
        candidate.grid, axes, torch.tensor(CENTRES)[reacts].T, strict=True
    ):
        correlation = torch.corrcoef(torch.stack([row_or_column.float(), centres]))[0, 1]
        if length > 1 and not float(correlation) >= ACCEPTED_CORRELATION:
            return False
    return True


def _layouts(shape: tuple[int, ...], aspect: float, choice: str) -> Iterator[tuple[Layout, tuple[int, int]]]:
    """Yield the layouts, with their grids, that outputs of this shape may have."""
    if len(shape) == 4:
        for last in (False, True):
            if choice in ("auto", "channels_last" if last else "channels_first"):
                layout = Layout(last, unplaced=None)
                yield layout, (shape[1], shape[2]) if last else (shape[2], shape[3])
        return
    tokens = shape[1]
    for special in range(min(tokens - 1, MAX_PREFIX + MAX_SUFFIX)):
        grid = grid_of(tokens - special, aspect)
        if grid is not None:
            for prefix in range(max(0, special - MAX_SUFFIX), min(special, MAX_PREFIX) + 1):
                yield Layout(False, prefix, special - prefix, None), grid


def probe_images(image: Tensor) -> Tensor:
    """Return a neutral image with the mean and spread of ``image`` (c, h, w), and one per bright patch.

    >>> probe_images(torch.rand(3, 28, 28)).shape
    torch.Size([9, 3, 28, 28])
    """
    channels, height, width = image.shape
    flat = image.float().flatten(1)
    mean, spread = flat.mean(dim=1), flat.std(dim=1)
    spread = torch.where(spread.isfinite() & (spread > 0), spread, torch.ones_like(spread))
    # A little noise: networks that divide by the spread of a channel must not divide by zero.
    noise = torch.randn((channels, height, width), generator=torch.Generator().manual_seed(0))
    neutral = mean[:, None, None] + 0.1 * spread[:, None, None] * noise
    images = neutral.repeat(len(CENTRES) + 1, 1, 1, 1)
    sign = torch.tensor([1.0, -1.0]).repeat(channels)[:channels]
    bright = (mean + 3 * spread * sign)[:, None, None]
    for number, (y, x) in enumerate(CENTRES, 1):
        (top, bottom), (left, right) = _extent(y, height), _extent(x, width)
        images[number, :, top:bottom, left:right] = bright
    if not image.is_floating_point():
        low, high = float(image.min()), float(image.max())
        images = images.round().clamp(min(low, 0.0), high if high > low else None)
    return images.to(image.dtype)


def _extent(centre: float, size: int) -> tuple[int, int]:
    """Return the first and last pixel (exclusive) of a bright patch along one side of the image."""
    side = max(1, round(size * SIDE))
    start = min(max(round(centre * size - side / 2), 0), size - side)
    return start, start + side


def position_error(strongest: Tensor, grid: tuple[int, int], prefix: int = 0) -> float:
    """Return the mean distance, in cells, between the bright patches and the strongest positions (k,).

    Position -1 stands for a patch that no position reacts to; it is left out.

    >>> on_4_by_4 = torch.tensor([2, 4, 7, 9, 11, 14, 1, 12])
    >>> position_error(on_4_by_4, (4, 4)) < 0.5 < position_error(on_4_by_4, (4, 4), prefix=1)
    True
    """
    height, width = grid
    errors = []
    for number, (y, x) in zip(strongest.tolist(), CENTRES, strict=True):
        if number < 0:
            continue
        position = number - prefix
        if not 0 <= position < height * width:
            errors.append(float(max(grid)))
            continue
        dy, dx = abs(position // width + 0.5 - y * height), abs(position % width + 0.5 - x * width)
        # A bright patch may cover several cells of a fine grid, and the strongest is then any of them.
        errors.append(max(dy / max(1.0, height * SIDE), dx / max(1.0, width * SIDE)))
    return sum(errors) / len(errors)
