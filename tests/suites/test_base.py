"""Estimates, the JSON of a result, and its picture."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from scipy.stats import sem

from seminmf_lightning.suites import Estimate, Line, Result, estimate
from seminmf_lightning.suites.picture import draw

SVG = "{http://www.w3.org/2000/svg}"


def test_an_estimate_is_the_mean_with_its_standard_error() -> None:
    ours, theirs = np.random.default_rng(0).normal(size=(2, 30))
    value, error = estimate(ours)
    assert value == pytest.approx(sum(ours) / 30)
    assert error == pytest.approx(sem(ours))
    paired = estimate(a - b for a, b in zip(ours, theirs, strict=True))
    assert paired.error == pytest.approx(sem(ours - theirs))
    correlated = estimate(ours + 0.01 * theirs - ours)  # pairing removes what two lines have in common
    assert correlated.error == pytest.approx(0.01 * sem(theirs))
    assert estimate([0.5]) == Estimate(0.5, None)
    assert math.isnan(estimate([]).value)


def result(*values: dict[str, Estimate]) -> Result:
    lines = [Line(f"line <{number}>", one) for number, one in enumerate(values)]
    return Result(title="t & u", lines=lines, columns={"a": "A"}, plotted=("a", "b"))


def test_nan_is_null_in_the_file() -> None:
    plain = result({"a": Estimate(math.nan, 0.1), "b": Estimate(2.0)}).plain()
    assert json.loads(json.dumps(plain, allow_nan=False))["lines"] == [
        {"line": "line <0>", "a": None, "a_se": 0.1, "b": 2.0}
    ]


@pytest.mark.parametrize("values", [[0.7, 0.8, 0.9], [0.8], [0.0, 0.0], [-3.0, 1e4], [math.nan, 0.5], []])
def test_the_picture_has_a_dot_at_each_value(values: list[float]) -> None:
    root = ElementTree.fromstring(draw(result(*({"a": Estimate(one, 0.01)} for one in values))))
    assert [one.text for one in root.iter(f"{SVG}text") if "line" in str(one.text)] == [
        f"line <{number}>" for number in range(len(values))
    ]
    width = float(root.attrib["width"])
    at = [float(one.attrib["cx"]) for one in root.iter(f"{SVG}circle")][2:]  # after those of the legend
    finite = [one for one in values if math.isfinite(one)]
    assert len(at) == len(finite)
    assert all(0 < one < width for one in at)
    assert np.argsort(at, kind="stable").tolist() == np.argsort(finite, kind="stable").tolist()
