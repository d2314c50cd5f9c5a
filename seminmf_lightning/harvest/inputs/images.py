"""Image files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from seminmf_lightning.harvest.inputs.base import Inputs, Unreadable
from seminmf_lightning.harvest.inputs.files import digest_of_files, files_of
from seminmf_lightning.harvest.inputs.pixels import as_rgb
from seminmf_lightning.io.untrusted import file_size

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that Pillow may open: another format with such a suffix could start Ghostscript."""
MOST_PIXELS = 2**26
"""Largest accepted image.  Pillow allocates 4 bytes per pixel before it knows whether the file has that many,
and decoders (WebP) need three times as much on top: at most 1 GB for a moment."""


@dataclass
class ImageFiles(Inputs):
    """A folder (searched to any depth), a glob, a file, or a list of them, in order of name."""

    path: str | Sequence[str]
    kind = "image"

    @cached_property
    def files(self) -> list[str]:
        return files_of(self.path, SUFFIXES, "image")

    def __len__(self) -> int:
        return len(self.files)

    def read(self, example: int) -> Any:
        from PIL import Image, ImageOps

        file = Path(self.files[example])
        try:
            file_size(file)
            with Image.open(file, formats=FORMATS) as image:
                if math.prod(image.size) > MOST_PIXELS:
                    raise Unreadable(
                        f"{file}: {image.width} x {image.height}; at most {MOST_PIXELS:,} pixels are read"
                    )
                ImageOps.exif_transpose(image, in_place=True)
                image.load()
                return as_rgb(image)
        except Unreadable:
            raise
        except Exception as error:  # decoders raise errors of their own
            raise Unreadable(f"{file}: not a complete image ({error})") from error

    def digest(self) -> str:
        return digest_of_files(self.files)

    def identify(self, example: int) -> str:
        return str(Path(self.files[example]))
