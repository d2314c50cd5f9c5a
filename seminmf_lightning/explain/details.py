"""Collect what the page shows of single concepts: one line in the list, neighbours, codes and examples.

Legend:  D (k, d) dictionary   Z (m, k) codes
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.constraints import Constraint
from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.explain.code_sample import histogram, quantile_rows
from seminmf_lightning.explain.gather import EncodeRanges, Summary
from seminmf_lightning.explain.provenance import Origins
from seminmf_lightning.explain.strongest import nearest

FEATURES = 8
"""Features shown per atom."""
NEIGHBOURS = 6
"""Similar and co-active concepts shown per concept."""
FOLDED = 0.1
"""A sign whose largest code is a smaller share of the other's is folded, and has no examples by quantile."""
SIGNS = (1, -1)

Details = dict[int, dict[str, Any]]


class Wanted(NamedTuple):
    """An example to show: a row that a concept fires on."""

    concept: int
    sign: int
    """Index in :data:`SIGNS`."""
    row: int
    value: float
    """``|z|``."""
    quantile: float | None = None
    """None for the strongest."""


def concept_table(summary: Summary) -> list[list[float]]:
    """Return one line per concept, most energy first: id, energy, densities, extreme codes, top feature."""
    rows, energy = max(summary.sums.rows, 1), summary.energy
    positive, negative = summary.top.signs()
    top_feature = summary.D.abs().argmax(dim=1)
    return [
        [
            concept, _short(energy[concept]), _short(summary.sums.positive[concept] / rows),
            _short(summary.sums.negative[concept] / rows), _short(positive.values[concept, 0]),
            _short(negative.values[concept, 0]), int(top_feature[concept]),
        ]
        for concept in energy.argsort(descending=True, stable=True).tolist()
    ]  # fmt: skip


def stronger_sign(summary: Summary, concept: int) -> int:
    """Return the index in :data:`SIGNS` of a concept's larger code; 0 if they are equal."""
    positive, negative = (float(top.values[concept, 0]) for top in summary.top.signs())
    return int(negative > positive)


def concept_details(summary: Summary, shown: list[int], signs: Constraint) -> Details:
    """Return top features, similar atoms and co-active concepts, as pairs of id and value, and the histogram
    of codes; examples are still missing."""
    largest = summary.D.abs().topk(min(FEATURES, summary.D.shape[1]), dim=1).indices
    weights = summary.D.gather(1, largest)
    similar = nearest(unit_atoms(summary.D), NEIGHBOURS, sign_is_free=signs.sign_is_free)
    together = nearest(summary.sample.vectors(), NEIGHBOURS)
    codes, _ = summary.sample.by_concept()

    def pairs(values: Tensor, ids: Tensor) -> list[list[float]]:
        return [
            [i, _short(value)] for value, i in zip(values.tolist(), ids.tolist(), strict=True) if value != 0
        ]

    def bars(concept: int) -> dict[str, Any] | None:
        counted = histogram(codes[concept])
        return counted and {
            "low": _short(counted.low), "high": _short(counted.high), "counts": counted.counts
        }  # fmt: skip

    return {
        concept: {
            "features": pairs(weights[concept], largest[concept]),
            "similar": pairs(similar[0][concept].clamp(min=0), similar[1][concept]),
            "together": pairs(together[0][concept].clamp(min=0), together[1][concept]),
            "codes": bars(concept),
            "signs": [[], []],
            "quantiles": [[], []],
        }
        for concept in shown
    }


def add_examples(details: Details, summary: Summary, origins: Origins, encode: EncodeRanges) -> None:
    """Add the strongest examples of each sign, and those by quantile, with the codes of the rows around each.

    Where images are limited, those of the strongest examples of all concepts come first, by energy.
    """
    wanted = _strongest(summary, details) + _by_quantile(summary, details)
    shown = _shown(wanted, origins, encode)
    for one in wanted:
        key = "signs" if one.quantile is None else "quantiles"
        details[one.concept][key][one.sign].append(shown[one])


def _strongest(summary: Summary, concepts: Iterable[int]) -> list[Wanted]:
    signs = summary.top.signs()
    return [
        Wanted(concept, sign, row, value)
        for concept in concepts
        for sign, top in enumerate(signs)
        for value, row in zip(top.values[concept].tolist(), top.row_ids[concept].tolist(), strict=True)
        if row >= 0
    ]


def _by_quantile(summary: Summary, concepts: Iterable[int]) -> list[Wanted]:
    codes, row_ids = summary.sample.by_concept()
    tops = summary.top.signs()
    wanted = []
    for concept in concepts:
        largest = [float(top.values[concept, 0]) for top in tops]
        for sign, top in enumerate(tops):
            if largest[sign] >= FOLDED * max(largest):
                sizes, shown = SIGNS[sign] * codes[concept], set(top.row_ids[concept].tolist())
                for quantile, value, row in quantile_rows(sizes, row_ids, shown):
                    wanted.append(Wanted(concept, sign, row, value, quantile))
    return wanted


def _shown(wanted: list[Wanted], origins: Origins, encode: EncodeRanges) -> dict[Wanted, dict[str, Any]]:
    """Return the JSON of each example for the page."""
    by_row = sorted(wanted, key=lambda one: one.row)  # a shard of origins is read once
    requests: dict[range, list[Wanted]] = {}
    for one in by_row:
        requests.setdefault(origins.neighbours(one.row), []).append(one)
    ranges = sorted(requests, key=lambda rows: (rows.start, rows.stop))
    codes: dict[Wanted, tuple[range, np.ndarray, float]] = {}
    for rows, Z in zip(ranges, encode(ranges), strict=True):
        for one in requests[rows]:
            codes[one] = (rows, *scaled_codes(Z[:, one.concept]))
    shown: dict[Wanted, dict[str, Any]] = {}
    for one in wanted if origins.limited else by_row:
        rows, scaled, peak = codes[one]
        shown[one] = origins.show(one.row, rows, scaled) | {
            "row": one.row, "z": _short(SIGNS[one.sign] * one.value), "peak": _short(peak)
        }  # fmt: skip
        if one.quantile is not None:
            shown[one]["quantile"] = one.quantile
    return shown


def scaled_codes(codes: Tensor) -> tuple[np.ndarray, float]:
    """Return codes (m,) of one example as integers, scaled so that the largest ``|z|`` is 127, and that
    ``|z|``.

    >>> scaled_codes(torch.tensor([0.0, -2.0, 1.0]))
    (array([   0, -127,   64], dtype=int16), 2.0)
    """
    codes = codes.double()
    peak = float(codes.abs().max())
    return (127 * codes / (peak or 1.0)).round().to(torch.int16).numpy(), peak


def _short(value: Any) -> float:
    return float(f"{float(value):.4g}")
