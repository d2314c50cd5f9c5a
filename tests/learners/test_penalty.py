"""The search for the penalty of a number of nonzeros."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from seminmf_lightning.learners.penalty import PenaltyTuner


@given(st.floats(0.5, 60), st.floats(1e-3, 10), st.floats(0.3, 3), st.floats(20, 500))
def test_the_penalty_of_a_wanted_number_of_nonzeros_is_found(
    target: float, middle: float, power: float, most: float
) -> None:
    def count(penalty: float) -> float:
        return most / (1 + (penalty / middle) ** power)

    if not count(1e3) < 0.9 * target < 1.1 * target < count(1e-6):
        return
    tuner = PenaltyTuner(target)
    tuner.search(count)
    assert tuner.usable
    assert math.isclose(count(tuner.penalty), tuner.held_out)
