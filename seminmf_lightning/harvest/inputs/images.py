"""Pictures in files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from seminmf_lightning.harvest.inputs.base import Inputs, Unreadable
from seminmf_lightning.harvest.inputs.files import digest_of_files, files_of
from seminmf_lightning.io.untrusted import file_size

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Of Pillow: a file that is something else under such a name is not opened, lest another program
(Ghostscript) is started."""
MOST_PIXELS = 2**26
"""Room for a picture is made before it is known whether the file has that many: Pillow takes 4 bytes a pixel,
decoders up to three times as much besides (WebP), so that the largest picture takes 1 GB for a moment."""


@dataclass
class ImageFiles(Inputs):
    """A folder (searched to any depth), a glob, a file, or a list of them; in order of name."""

    path: str | Sequence[str]
    kind = "image"

    @cached_property
    def files(self) -> list[str]:
        return files_of(self.path, SUFFIXES, "picture")

    def __len__(self) -> int:
        return len(self.files)

    def read(self, example: int) -> Any:
        from PIL import Image, ImageOps

        file = Path(self.files[example])
        try:
            file_size(file)
            with Image.open(file, formats=FORMATS) as picture:
                if math.prod(picture.size) > MOST_PIXELS:
                    raise Unreadable(
                        f"{file}: {picture.width} x {picture.height}; at most {MOST_PIXELS:,} pixels are read"
                    )
                ImageOps.exif_transpose(picture, in_place=True)
                picture.load()
                return picture if picture.mode == "RGB" else picture.convert("RGB")  # which would copy
        except Unreadable:
            raise
        except Exception as error:  # a decoder may raise anything of its own
            raise Unreadable(f"{file}: not a whole picture ({error})") from error

    def digest(self) -> str:
        return digest_of_files(self.files)

    def identify(self, example: int) -> str:
        return str(Path(self.files[example]))
