"""How a row is shown on the page."""

from __future__ import annotations

import re

import numpy as np

from seminmf_lightning.explain import Harvested
from seminmf_lightning.harvest.provenance import TokenOrigin


def test_a_sentence_shows_the_words_that_have_codes_and_whole_ones() -> None:
    text = " ".join(f"word{number} then" for number in range(200))

    class Words:
        """Every word is a row; rows 100 to 139 are one window."""

        def origin(self, row: int) -> TokenOrigin:
            at = [found.span() for found in re.finditer(r"\S+", text)][row]
            return TokenOrigin(
                row=row, example=0, name="corpus", position=row, text=text, start=at[0], stop=at[1]
            )

    rows = range(100, 140)
    for row in (100, 105, 120, 139):
        shown = Harvested(Words(), 0).show(row, rows, np.full(40, 5, np.int16))  # type: ignore[arg-type]
        inside = shown["text"].strip("…")
        assert f" {inside} " in f" {' '.join(text.split()[100:140])} "
        here = [shown["text"][start:stop] for start, stop, _, here in shown["tokens"] if here]
        assert here == [text.split()[row]]
        assert {shown["text"][start:stop] for start, stop, _, _ in shown["tokens"]} == set(inside.split())
        assert shown["text"].startswith("…") and shown["text"].endswith("…")
