"""Scores of automatic labels, on rows that they were not made from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from seminmf_lightning.explain.code_sample import CodeSample
from seminmf_lightning.explain.label_score import LabelScore, score, score_labels
from seminmf_lightning.explain.provenance import Origins

WORDS = ["cat", "dog", "the", "cat", "cat", "dog", "the", "sat"]


class Words(Origins):
    """Rows that are words, two of them in each text."""

    def groups(self, start: int, stop: int) -> np.ndarray:
        return np.arange(start, stop) // 2

    def neighbours(self, row: int) -> range:
        return range(row, row + 1)

    def token(self, row: int) -> str | None:
        return WORDS[row]

    def show(self, row: int, rows: range, codes: np.ndarray) -> dict[str, Any]:
        return {"text": WORDS[row], "tokens": [[0, len(WORDS[row]), 127, 1]], "row": row}


def test_texts_that_a_label_was_made_from_do_not_count() -> None:
    Z = torch.zeros(8, 2)
    Z[:, 0] = torch.tensor([9.0, 9.0, 0.0, 9.0, 0.0, 0.5, -7.0, 1.0])  # on "cat", made from rows 0 and 3
    Z[:, 1] = torch.tensor([0.0, 0.0, -5.0, 1.0, 0.0, 0.0, -2.0, 0.0])  # against "the", made from row 2
    sample = CodeSample(2, 8)
    sample.update(Z, torch.arange(8))
    examples = {0: (1, [Words().show(row, range(row, row), Z[row].numpy()) for row in (0, 3)]),
                1: (-1, [Words().show(2, range(2, 2), Z[2].numpy())])}  # fmt: skip
    scores = score_labels(sample, Words(), examples)
    # Of rows 4 to 7, "cat" is row 4, where concept 0 is silent; of all but rows 2 and 3, "the" is row 6.
    assert scores == {0: LabelScore(0.25, 0.0, 0.0), 1: LabelScore(1 / 6, 1.0, 1.0)}
    assert score_labels(sample, Words(), {0: (1, [{"name": "row 0", "row": 0}])}) == {}


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), max_size=12))
def test_a_score_is_what_counting_gives(rows: list[tuple[int, bool, bool]]) -> None:
    counted = [(z, named) for z, named, held_out in rows if held_out]
    columns = np.array(rows, dtype=float).reshape(-1, 3).T
    found = score(columns[0], columns[1] > 0, columns[2] > 0)
    with_token = [z for z, named in counted if named]
    total = sum(z**2 for z, _ in counted)
    if not with_token or not total:
        assert found is None
        return
    expected = (len(with_token) / len(counted), sum(z**2 for z in with_token) / total,
                sum(z > 0 for z in with_token) / len(with_token))  # fmt: skip
    np.testing.assert_allclose(found, expected)
