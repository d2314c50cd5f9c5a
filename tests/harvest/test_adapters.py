"""The region that preprocessing leaves of an image."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seminmf_lightning.harvest.adapters import CentreCrop
from seminmf_lightning.harvest.provenance import _box, _inside


@given(st.integers(20, 500), st.integers(20, 500))
def test_a_centre_crop_lies_in_its_image(height: int, width: int) -> None:
    top, left, h, w = CentreCrop((256, 256), (224, 224))(height, width)
    assert top >= 0 and left >= 0 and top + h <= height + 1e-6 and left + w <= width + 1e-6
    assert h == pytest.approx(min(height, width) * 224 / 256)


@given(st.integers(20, 500), st.integers(20, 500), st.sampled_from([0.5, 0.8, 1.0]))
def test_a_stretched_image_loses_the_same_share_of_both_sides(height: int, width: int, share: float) -> None:
    region = CentreCrop((240, 160), (240 * share, 160 * share), "stretch")(height, width)
    assert region == pytest.approx(
        (height * (1 - share) / 2, width * (1 - share) / 2, height * share, width * share)
    )


@given(st.integers(20, 500), st.integers(20, 500))
def test_an_image_inside_its_frame_is_padded_on_two_sides_at_most(height: int, width: int) -> None:
    top, left, h, w = CentreCrop((224, 224), (224, 224), "inside")(height, width)
    assert h == pytest.approx(max(height, width)) and w == pytest.approx(h)
    assert top == pytest.approx((height - h) / 2) and left == pytest.approx((width - w) / 2)
    # Patches tile the image; those of padding have no box.
    region, size = [top, left, h, w], [height, width]
    area = 0
    for y in range(4):
        for x in range(4):
            box = _inside(_box({"y": y, "x": x, "height": 4, "width": 4}, region), region, size)
            area += 0 if box is None else (box[2] - box[0]) * (box[3] - box[1])
    assert area == height * width
