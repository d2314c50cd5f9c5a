"""Convert images of every mode to 8-bit RGB, scaled by their type; refuse those of unknown range."""

from __future__ import annotations

from typing import Any

import numpy as np

BITS_PER_SAMPLE = 258
"""Tag of TIFF."""
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
"""Tag of TIFF, and its value in negatives."""
SIXTEEN_BITS = ("PNG", "PPM")
"""Formats whose 16-bit integers Pillow widens to 32 bits."""


def as_rgb(image: Any) -> Any:
    """Return a PIL image as RGB; transparent parts are laid over white.

    16-bit samples are scaled by their range, floating-point ones from [0, 1].

    Raises:
        ValueError: the samples have no known range: 32-bit integers, floating point outside [0, 1].
    """
    from PIL import Image

    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float64)
        values = values * (255.0 / _white(image, values))
        if image.mode.startswith("I") and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:
            values = 255.0 - values  # which Pillow does for 8 bits only
        return Image.fromarray(np.rint(values).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _white(image: Any, values: np.ndarray) -> float:
    """Return the value of white in a greyscale image of more than 8 bits."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if image.mode == "F":
        if not (low >= 0.0 and high <= 1.0):  # False for NaN, too
            raise ValueError(
                f"floating-point samples from {low:g} to {high:g}, whose value of white is unknown; "
                "scale them to 0..1"
            )
        return 1.0
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))[0]
    if (image.mode == "I" and image.format not in SIXTEEN_BITS) or bits > 16:
        raise ValueError(
            f"32-bit integer samples from {low:g} to {high:g}, whose value of white is unknown; "
            "save them as 8 or 16 bits"
        )
    return float(2**bits - 1)
