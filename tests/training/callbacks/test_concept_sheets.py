"""Sheets of images for TensorBoard: the stronger sign first, a caption for each, the scale of the concept."""

from __future__ import annotations

import numpy as np
import pytest

from seminmf_lightning.harvest.provenance import PatchOrigin
from seminmf_lightning.training.callbacks.concept_sheets import GAP, LINE, TILE, Sign, concept_sheet

PIL = pytest.importorskip("PIL.Image")


class Patches:
    """White images of two by two patches, four rows each."""

    def neighbours(self, row: int) -> range:
        return range(row - row % 4, row - row % 4 + 4)

    def origin(self, row: int) -> PatchOrigin:
        at = row % 4
        return PatchOrigin(
            row, row // 4, "folder/image.png", at, None, (8, 8), (0, 0, 8, 8), (at // 2, at % 2, 2, 2)
        )

    def image(self, origin: PatchOrigin) -> object:
        return PIL.new("RGB", (8, 8), "white")


def test_the_stronger_sign_comes_first_on_the_scale_of_the_concept() -> None:
    codes = {0: [1.0, 0, 0, 0], 1: [-4.0, 0, 0, 0]}
    signs = [Sign(False, [1.0], [0]), Sign(True, [4.0], [4])]
    sheet = concept_sheet(7, signs, 1, Patches(), lambda rows: np.array(codes[rows.start // 4]))  # type: ignore[arg-type]
    high = TILE + 2 * LINE + GAP
    assert sheet.shape == (2 * high, TILE + 2 * GAP, 3)
    below, above = (
        sheet[line * high + LINE + TILE // 4, GAP + TILE // 4].astype(int) for line in (0, 1)
    )  # the middle of the firing patch
    assert below[2] > below[0] and above[0] > above[2]  # blue, then red
    assert below.sum() < above.sum()  # four times as strong
    for line in (0, 1):  # captions above and below
        assert sheet[line * high : line * high + LINE].min() < 250
        assert sheet[line * high + LINE + TILE : line * high + 2 * LINE + TILE].min() < 128
