"""The region that preprocessing leaves of an image."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seminmf_lightning.harvest.adapters import CentreCrop


@given(st.integers(20, 500), st.integers(20, 500))
def test_a_centre_crop_lies_in_its_picture(height: int, width: int) -> None:
    top, left, h, w = CentreCrop((256, 256), (224, 224))(height, width)
    assert top >= 0 and left >= 0 and top + h <= height + 1e-6 and left + w <= width + 1e-6
    assert h == pytest.approx(min(height, width) * 224 / 256)
