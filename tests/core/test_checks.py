"""Arguments are checked: what was given, what is accepted, the nearest name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from seminmf_lightning.core.checks import known_names, one_of, real_number, whole_number


@pytest.mark.parametrize("value", [0, 3, np.int64(3), 10**20])
def test_whole_numbers_pass(value: Any) -> None:
    assert whole_number("k", value, 0) == int(value)
    assert type(whole_number("k", value, 0)) is int


@pytest.mark.parametrize("value", [True, 1.0, "1", None, np.float32(1)])
def test_other_things_are_no_whole_numbers(value: Any) -> None:
    with pytest.raises(TypeError, match="k must be a whole number, got"):
        whole_number("k", value, 0)


def test_bounds_of_numbers_are_exact() -> None:
    with pytest.raises(ValueError, match="k must be at least 2, got 1"):
        whole_number("k", 1, 2)
    assert whole_number("k", 2, 2) == 2
    assert real_number("x", 0, 0) == 0.0
    assert real_number("x", 0.99, 0, below=1) == real_number("x", 0.99, 0, at_most=0.99)
    with pytest.raises(ValueError, match=r"x must be at least 0 and at most 1, got 1\.5"):
        real_number("x", 1.5, 0, at_most=1)
    for value in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="x must be above 0, got"):
            real_number("x", value, 0, exclusive=True)
    with pytest.raises(ValueError, match="x must be at least 0 and below 1, got 1"):
        real_number("x", 1, 0, below=1)
    for wrong in (True, "1", None, 1j):
        with pytest.raises(TypeError, match="x must be a number"):
            real_number("x", wrong, 0)


def test_words_are_compared_with_the_accepted_ones() -> None:
    assert one_of("mode", "scale", ("none", "scale")) == "scale"
    with pytest.raises(ValueError, match="one of none, scale; got 'scael'; did you mean 'scale'"):
        one_of("mode", "scael", ("none", "scale"))
    with pytest.raises(TypeError, match=r"got 3 \(int\)"):
        one_of("mode", 3, ("none", "scale"))
    known_names("setting", ["tol"], ["tol"])
    with pytest.raises(TypeError, match="unknown setting 'x'; accepted: none"):
        known_names("setting", ["x"], [])
