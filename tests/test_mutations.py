"""The tests notice most small changes of the core, the solvers, the encoders and the learners."""

from __future__ import annotations

from pathlib import Path

import pytest
from bounded import bounded
from mutate import ROOMS, mutants, survivors


def test_mutants_change_one_thing_each(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("def f(x):\n    if not x < 1:\n        return x + y\n    return None\n")
    bodies = [mutant.source.split("\n", 1)[1] for mutant in mutants(file)]
    assert sorted(bodies) == sorted(
        [
            "    if +(x < 1):\n        return x + y\n    return None",
            "    if not x >= 1:\n        return x + y\n    return None",
            "    if not x < 2:\n        return x + y\n    return None",
            "    if not x < 1:\n        return x - y\n    return None",
            "    if not x < 1:\n        return None\n    return None",
        ]
    )


@pytest.mark.slow
def test_most_of_a_sample_of_mutants_are_killed() -> None:
    alive, tried = survivors(ROOMS, sample=bounded(12, 6), seed=7, timeout=120, minutes=bounded(5, 3))
    assert tried > 0
    assert len(alive) <= 0.5 * tried
