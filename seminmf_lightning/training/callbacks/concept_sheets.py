"""Draw a concept's strongest images of both signs, with captions, on one sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from seminmf_lightning.explain.provenance import network_view
from seminmf_lightning.harvest.provenance import PatchOrigin, Tracer

TILE = 176
"""Pixels of the longer side of an image."""
GAP = 8
"""Pixels between images."""
FONT = 15
"""Height of letters, in pixels."""
LINE = FONT + 7
"""Height of a caption."""
COLOURS = ((214, 39, 40), (31, 119, 180))
"""Colours where z > 0 and where z < 0."""
OPACITY = 180
"""Opacity, of 255, where the concept has its largest code."""


class Sign(NamedTuple):
    """The strongest rows of one sign."""

    below: bool
    """Whether z < 0."""
    values: Sequence[float]
    """``|z|``, strongest first."""
    row_ids: Sequence[int]


def concept_sheet(
    concept: int, signs: Sequence[Sign], columns: int, tracer: Tracer, codes_of: Callable[[range], np.ndarray]
) -> np.ndarray:
    """Return an image (h, w, 3) of the strongest rows of a concept: the stronger sign first, a line for each.

    Args:
        signs: signs that have rows.
        columns: images per line.
        codes_of: returns the concept's codes (m,) of a range of m rows.
    """
    from PIL import Image, ImageDraw, ImageFont

    signs = sorted(signs, key=lambda sign: -sign.values[0])
    high = TILE + 2 * LINE + GAP  # a line of images with the captions above and below
    sheet = Image.new("RGB", (columns * (TILE + GAP) + GAP, max(1, len(signs)) * high), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT)
    for line, sign in enumerate(signs):
        top = line * high
        below, above = f"z < 0, smallest {-sign.values[0]:.3g}", f"z > 0, largest {sign.values[0]:.3g}"
        title = f"concept {concept}: {below if sign.below else above}"
        pen.text((GAP, top + 2), title, fill=COLOURS[sign.below], font=font)
        for column, (value, row) in enumerate(zip(sign.values, sign.row_ids, strict=True)):
            left, origin, rows = GAP + column * (TILE + GAP), tracer.origin(row), tracer.neighbours(row)
            assert isinstance(origin, PatchOrigin)
            view = network_view(tracer.image(origin), origin.region, TILE)
            view = heat_map(view, origin, tracer, rows, codes_of(rows), signs[0].values[0])
            sheet.paste(view, (left, top + LINE))
            name = origin.title.replace("\\", "/").rpartition("/")[2]
            caption = fitted(f"{-value if sign.below else value:.3g}  {name}", font.getlength)
            pen.text((left, top + LINE + TILE + 2), caption, fill="black", font=font)
    return np.asarray(sheet)


def fitted(text: str, width: Callable[[str], float]) -> str:
    """Return a text no wider than an image, with an ellipsis where it is cut.

    >>> fitted("z" * 40, width=lambda text: 10 * len(text))
    'zzzzzzzzzzzzzz...'
    """
    kept = text
    while width(text) > TILE and kept:
        kept = kept[:-1]
        text = f"{kept}..."
    return text


def heat_map(
    image: Any, origin: PatchOrigin, tracer: Tracer, rows: range, codes: np.ndarray, largest: float
) -> Any:
    """Lay the codes (len(rows),) of patches over a PIL image: red above 0, blue below, opaque at ``largest``;
    the patch of ``origin`` has an outline."""
    from PIL import Image, ImageDraw

    _, _, height, width = origin.cell
    if height < 1:
        return image
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    pen = ImageDraw.Draw(layer)
    for row, code in zip(rows, codes.tolist(), strict=True):
        patch = tracer.origin(row)
        assert isinstance(patch, PatchOrigin)
        y, x = patch.cell[:2]
        if y < 0:
            continue
        corner = (x * image.width // width, y * image.height // height)
        end = ((x + 1) * image.width // width - 1, (y + 1) * image.height // height - 1)
        if code:
            share = min(1.0, abs(code) / max(largest, 1e-12))
            pen.rectangle((*corner, *end), fill=(*COLOURS[code < 0], int(OPACITY * share)))
        if row == origin.row:
            pen.rectangle((*corner, *end), outline="black")
            pen.rectangle((corner[0] + 1, corner[1] + 1, end[0] - 1, end[1] - 1), outline="white")
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")
