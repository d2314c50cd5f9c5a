"""Images of every mode become 8-bit RGB with the right brightness, or are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seminmf_lightning.harvest.inputs import Unreadable
from seminmf_lightning.harvest.inputs.images import ImageFiles

GRADIENT = np.linspace(0, 1, 32 * 32).reshape(32, 32)


def read(folder: Path, image: Any, name: str, **options: Any) -> np.ndarray:
    image.save(folder / name, **options)
    return np.asarray(ImageFiles(str(folder / name)).read(0))


@pytest.mark.parametrize("name", ["a.png", "b.tif", "c.tiff"])
def test_sixteen_bits_are_scaled(name: str, tmp_path: Path) -> None:
    from PIL import Image

    values = (GRADIENT * 65535 * 0.8).astype(np.uint16)
    pixels = read(tmp_path, Image.fromarray(values), name)
    assert pixels.shape == (32, 32, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels[..., 1] - GRADIENT * 204).max() <= 1


def test_a_negative_of_16_bits_is_turned_round(tmp_path: Path) -> None:
    from PIL import Image

    negative = 65535 - (GRADIENT * 65535).astype(np.uint16)
    pixels = read(tmp_path, Image.fromarray(negative), "a.tif", tiffinfo={262: 0})
    assert np.abs(pixels[..., 0] - GRADIENT * 255).max() <= 1


def test_floating_point_is_scaled_from_zero_to_one_or_refused(tmp_path: Path) -> None:
    from PIL import Image

    values = (GRADIENT * 0.5).astype(np.float32)
    assert np.abs(read(tmp_path, Image.fromarray(values), "a.tif")[..., 0] - GRADIENT * 127.5).max() <= 1
    for wrong in (values * 900, values - 1, np.where(values > 0.4, np.nan, values)):
        with pytest.raises(Unreadable, match=r"b\.tif.*floating-point samples .* scale them to 0\.\.1"):
            read(tmp_path, Image.fromarray(wrong.astype(np.float32)), "b.tif")


def test_32_bit_integers_are_refused(tmp_path: Path) -> None:
    from PIL import Image

    with pytest.raises(Unreadable, match=r"a\.tif.*32-bit integer samples from 0 to 999.*8 or 16 bits"):
        read(tmp_path, Image.fromarray((GRADIENT * 999).astype(np.int32)), "a.tif")


def test_transparent_parts_are_laid_over_white(tmp_path: Path) -> None:
    from PIL import Image

    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2] = (10, 200, 30, 255)
    rgba[3] = (0, 0, 0, 51)
    pixels = read(tmp_path, Image.fromarray(rgba), "a.png")
    assert pixels[0, 0].tolist() == [10, 200, 30] and pixels[2, 0].tolist() == [255] * 3
    assert pixels[3, 0].tolist() == [204] * 3
    grey = Image.fromarray(
        np.dstack([np.full((3, 3), 7, np.uint8), np.array([[0, 255, 255]] * 3, np.uint8)]), "LA"
    )
    assert read(tmp_path, grey, "b.png")[0].tolist() == [[255] * 3, [7] * 3, [7] * 3]
    palette = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    palette.putpalette([250, 0, 0, 0, 0, 250])
    assert read(tmp_path, palette, "c.png")[0].tolist() == [[250, 0, 0], [0, 0, 250]]
    assert read(tmp_path, palette, "d.png", transparency=1)[0].tolist() == [[250, 0, 0], [255] * 3]


def test_cmyk_and_one_bit_keep_their_colours(tmp_path: Path) -> None:
    from PIL import Image

    cmyk = read(tmp_path, Image.new("RGB", (16, 16), (255, 0, 0)).convert("CMYK"), "a.jpg", quality=95)
    assert np.abs(cmyk[8, 8].astype(int) - [255, 0, 0]).max() < 6
    assert read(tmp_path, Image.new("1", (5, 5), 1), "b.png").tolist() == np.full((5, 5, 3), 255).tolist()


def test_a_dangling_link_is_one_unreadable_example(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("a.png", "c.png"):
        Image.new("RGB", (9, 9), (1, 2, 3)).save(tmp_path / name)
    (tmp_path / "b.png").symlink_to("nowhere")
    inputs = ImageFiles(str(tmp_path))
    assert len(inputs) == 3 and inputs.digest()
    with pytest.raises(Unreadable, match=r"b\.png"):
        inputs.read(1)
    assert inputs.read(2).size == (9, 9)
