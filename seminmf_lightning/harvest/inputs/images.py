"""Pictures in files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from seminmf_lightning.harvest.inputs.base import Inputs, Unreadable
from seminmf_lightning.harvest.inputs.files import digest_of_files, files_of

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")


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

        try:
            with Image.open(self.files[example]) as picture:
                return ImageOps.exif_transpose(picture).convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise Unreadable(f"{self.files[example]}: not a whole picture ({error})") from error

    def digest(self) -> str:
        return digest_of_files(self.files)

    def identify(self, example: int) -> str:
        return str(Path(self.files[example]))
