"""Score automatic labels: how well the tokens that a label names tell where its concept fires.

Legend:  Z (k, s) codes of s sampled rows, by concept   z (s,) codes of one concept, those of its other sign 0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from seminmf_lightning.explain.automatic_labels import tokens_of
from seminmf_lightning.explain.code_sample import CodeSample
from seminmf_lightning.explain.provenance import Origins

SCORED_ROWS = 20_000
"""Most rows that labels are scored on, evenly from the sample: reading their tokens takes about a second."""

Example = Mapping[str, Any]


class LabelScore(NamedTuple):
    """How well tokens tell where a concept fires, on rows of windows that the label was not made from."""

    share: float
    """Share of these rows that hold one of the tokens: the energy that a label of chance would have."""
    energy: float
    """Their share of the concept's squared codes (recall)."""
    fires: float
    """Share of the rows with one of the tokens on which the concept fires (precision)."""


def score(z: np.ndarray, named: np.ndarray, held_out: np.ndarray) -> LabelScore | None:
    """Return the score of codes z >= 0 (s,), given which rows have a token of the label and which count.

    None where no row that counts has such a token, or none fires.

    >>> z, named = np.array([2.0, 0, 1, 9]), np.array([True, True, False, True])
    >>> score(z, named, held_out=np.array([True, True, True, False]))
    LabelScore(share=0.6666666666666666, energy=0.8, fires=0.5)
    """
    z, named = z[held_out].astype(np.float64), named[held_out]
    squares = np.square(z)
    if not named.any() or not squares.any():
        return None
    energy = float(squares[named].sum() / squares.sum())
    return LabelScore(float(named.mean()), energy, float((z[named] > 0).mean()))


def score_labels(
    sample: CodeSample, origins: Origins, strongest: Mapping[int, tuple[int, Sequence[Example]]]
) -> dict[int, LabelScore]:
    """Return the scores of the labels of concepts, given the sign (1 or -1) and examples they are made from.

    Rows of the windows of these examples do not count.  Concepts that fire on no tokens have no score.
    """
    named = {concept: tokens_of(examples) for concept, (_, examples) in strongest.items()}
    if not any(named.values()):
        return {}
    codes, row_ids = sample.by_concept()
    every = slice(None, None, -(-len(row_ids) // SCORED_ROWS))
    Z, rows = codes[:, every].numpy(), row_ids[every].tolist()
    tokens = np.array([origins.token(row) or "" for row in rows])
    windows = np.array([_window(origins, row) for row in rows])
    scores = {}
    for concept, (sign, examples) in strongest.items():
        used = [_window(origins, one["row"]) for one in examples]
        found = score(
            (sign * Z[concept]).clip(min=0), np.isin(tokens, named[concept]), ~np.isin(windows, used)
        )
        if named[concept] and found is not None:
            scores[concept] = found
    return scores


def _window(origins: Origins, row: int) -> int:
    return int(origins.groups(row, row + 1)[0])
