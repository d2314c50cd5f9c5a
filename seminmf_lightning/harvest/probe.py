"""Find where a layer's rows lie in an image: light one patch at a time and see which position reacts.

For an output x_i (c,) at position i, the reaction to patch k is d_ki = |x_i(patch k) - x_i(neutral image)|. A
position that reacts to every patch, such as [CLS], tells nothing, so positions are compared by
d_ki^2 / sum_k d_ki: the reaction times the share of it that belongs to this patch. Under the right layout the
strongest position of patch k is the cell that holds it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from seminmf_lightning.harvest.adapters import Item
from seminmf_lightning.harvest.layers import Capture, Layer
from seminmf_lightning.harvest.layout import Layout, grid_of, layout_by_shape
from seminmf_lightning.harvest.models import Loaded

PLACES = (
    (0.14, 0.66), (0.30, 0.21), (0.42, 0.87), (0.61, 0.37),
    (0.73, 0.93), (0.88, 0.52), (0.24, 0.45), (0.79, 0.11),
)  # fmt: skip
"""Centres of the bright patches (y, x), as shares of height and width: no two share a row or a column."""
SIDE = 1 / 14
"""Side of a bright patch, as a share of the image's."""
MAX_PREFIX, MAX_SUFFIX = 16, 112
"""Special tokens before the patches (registers) and behind them (YOLOS has 100 detection tokens)."""
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
"""Bright patches that must move some row at all."""
EVEN = 4.0
"""Ratio of strongest to median position below which a layer mixes all of the image into every position."""


def probe_layouts(
    loaded: Loaded, item: Item, layers: Sequence[Layer], choice: str, device: torch.device, batch_size: int
) -> dict[str, Layout]:
    """Return the layout of each layer for a network of images or maps, from nine forward passes.

    Args:
        item: any item of the inputs; it gives the shape and the range of values.
        choice: the ``layout`` setting: which axis of maps holds the channels.

    Raises:
        ValueError: a layer returns maps that are not maps of the image, and ``choice`` is ``auto``.
    """
    (name, image), *_ = item.inputs.items()
    is_image = image.ndim == 3 and image.is_floating_point()
    images = probe_images(image) if is_image else image[None]
    items = [Item(item.example, 0, item.inputs | {name: one}) for one in images]
    outputs: dict[Layer, list[Tensor]] = {layer: [] for layer in layers}
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]

        def keep(layer: Layer, output: Tensor, count: int = len(batch)) -> None:
            if output.ndim == 0 or len(output) != count:
                raise ValueError(
                    f"layer {layer!s} returns {tuple(output.shape)} for a batch of {count} items: its first "
                    "axis is not the batch, as where windows or heads are folded into it. Choose another "
                    "layer (list=true)"
                )
            outputs[layer].append(output.float().cpu())

        def forward(batch: list[Item] = batch) -> None:
            loaded.feed.call(loaded.network, batch, device)

        Capture(loaded.network, layers, keep).run(forward)
    aspect = image.shape[-2] / image.shape[-1] if image.ndim > 1 else 1.0
    layouts = {}
    for layer, parts in outputs.items():
        output = torch.cat(parts)
        guess = layout_by_shape(tuple(output.shape), loaded.feed, aspect, choice)
        if guess.unplaced is None and not is_image:
            guess = guess._replace(unplaced=f"the network takes {tuple(image.shape)}, not an image (c, h, w)")
        elif output.ndim in (3, 4) and is_image and (output.ndim == 4 or loaded.feed.images):
            guess = _confirm(layer, output, guess, aspect, choice)
        layouts[str(layer)] = guess
    return layouts


def _confirm(layer: Layer, output: Tensor, guess: Layout, aspect: float, choice: str) -> Layout:
    """The layout that the reactions fit best; ``guess`` without a place where none fits."""
    shape = tuple(output.shape)
    reactions: dict[bool, Tensor] = {}
    candidates = []
    for layout, grid in _candidates(shape, aspect, choice):
        if layout.channels_last not in reactions:
            first = output.ndim == 4 and not layout.channels_last
            positions = output.permute(0, 2, 3, 1) if first else output
            reactions[layout.channels_last] = reaction(positions.flatten(1, -2))
        scores = reactions[layout.channels_last]
        reacts = scores.amax(dim=1) > 0
        if int(reacts.sum()) < MIN_REACTIONS:
            return guess._replace(unplaced="it does not react to a bright patch of the image")
        strongest = torch.where(reacts, scores.argmax(dim=1), -1)
        candidates.append((place_error(strongest, grid, layout.prefix), layout, grid, strongest))
    if candidates:
        best = min(error for error, *_ in candidates)
        error, layout, grid, strongest = min(
            (one for one in candidates if one[0] <= best + MARGIN),
            key=lambda one: (one[1].prefix + one[1].suffix, one[1].suffix, one[0]),
        )
        accepted = _accepted_error(output.ndim, grid, aspect)
        if error <= accepted and _follows(strongest, grid, layout.prefix):
            return layout
        scores = reactions[guess.channels_last]
        if bool((scores.amax(dim=1) < EVEN * scores.median(dim=1).values).all()):
            return guess._replace(unplaced="every position reacts alike, wherever a bright patch lies")
    if output.ndim == 4 and choice == "auto":
        raise ValueError(
            f"layer {layer!s} returns {shape[1:]} per image, of which neither the last two axes nor the "
            "first two are those of the image: a bright patch moves other positions than its own, as in "
            "attention maps, heads, blocks and windows. Choose another layer (list=true); or set "
            "layout=channels_first or layout=channels_last, which gives rows without a place in the image"
        )
    return guess._replace(
        unplaced=guess.unplaced or "a bright patch of the image moves other rows than its own"
    )


def _accepted_error(ndim: int, grid: tuple[int, int], aspect: float) -> float:
    stretched = abs(math.log(grid[0] / grid[1] / aspect)) > math.log(ACCEPTED_STRETCH)
    # Guesses come closer to the truth on a small grid.
    return min(ACCEPTED_IF_STRETCHED if stretched else ACCEPTED_ERROR[ndim], 0.25 + 0.15 * max(grid))


def _follows(strongest: Tensor, grid: tuple[int, int], prefix: int) -> bool:
    """Whether the strongest positions (k,) move down and right as the bright patches do."""
    known = strongest >= 0
    cells = strongest[known] - prefix
    axes = (torch.div(cells, grid[1], rounding_mode="floor"), cells % grid[1])
    for axis, places in enumerate(torch.tensor(PLACES)[known].unbind(dim=1)):
        correlation = torch.corrcoef(torch.stack([axes[axis].float(), places]))[0, 1]
        if grid[axis] > 1 and not float(correlation) >= ACCEPTED_CORRELATION:
            return False
    return True


def _candidates(
    shape: tuple[int, ...], aspect: float, choice: str
) -> Iterator[tuple[Layout, tuple[int, int]]]:
    """Layouts, and their grids, that outputs of this shape may have."""
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
    images = neutral.repeat(len(PLACES) + 1, 1, 1, 1)
    sign = torch.tensor([1.0, -1.0]).repeat(channels)[:channels]
    bright = (mean + 3 * spread * sign)[:, None, None]
    for number, (y, x) in enumerate(PLACES, 1):
        (top, bottom), (left, right) = _extent(y, height), _extent(x, width)
        images[number, :, top:bottom, left:right] = bright
    return images.to(image.dtype)


def _extent(centre: float, size: int) -> tuple[int, int]:
    """First and last pixel (exclusive) of a bright patch along one side of the image."""
    side = max(1, round(size * SIDE))
    start = min(max(round(centre * size - side / 2), 0), size - side)
    return start, start + side


def reaction(outputs: Tensor) -> Tensor:
    """Return d_ki^2 / sum_k d_ki (k, i) for outputs (1 + k, i, c): neutral image, then bright patches."""
    d = (outputs[1:] - outputs[:1]).norm(dim=2).nan_to_num(0.0, 0.0, 0.0)
    return d * d / d.sum(dim=0).clamp(min=torch.finfo(torch.float32).tiny)


def place_error(strongest: Tensor, grid: tuple[int, int], prefix: int = 0) -> float:
    """Return the mean distance, in cells, between the bright patches and the strongest positions (k,).

    Position -1 stands for a patch that no position reacts to; it is left out.

    >>> on_4_by_4 = torch.tensor([2, 4, 7, 9, 11, 14, 1, 12])
    >>> place_error(on_4_by_4, (4, 4)) < 0.5 < place_error(on_4_by_4, (4, 4), prefix=1)
    True
    """
    height, width = grid
    errors = []
    for number, (y, x) in zip(strongest.tolist(), PLACES, strict=True):
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
