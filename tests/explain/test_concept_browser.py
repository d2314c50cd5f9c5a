"""What the concept browser shows of hand-made concepts: marks, previews, order of signs, colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seminmf_lightning.explain.page import _render, embed


def text_example(z: float, token: str, row: int, other_code: int = 0) -> dict[str, Any]:
    """An example whose token fires with z; the word after it has ``other_code`` 127ths of that."""
    stop = 4 + len(token)
    tokens = [[4, stop, 127 if z > 0 else -127, 1]] + [[stop + 1, stop + 5, other_code, 0]] * bool(other_code)
    name = f"/home/me/corpus/{row}.txt"
    return {"name": name, "text": f"the {token} word", "tokens": tokens, "row": row, "z": z, "peak": abs(z)}


@pytest.fixture
def crafted(tmp_path: Path) -> Path:
    """Concept 0 has two signs, the negative stronger; 1 has one strong example; 2 resembles 0; 3 is dead; 4
    has a weak negative sign."""
    signs = {
        0: [
            [text_example(0.5, "pale", 1, 12)],
            [text_example(-2.0, "deep", 2), text_example(-1.5, "deep", 3)],
        ],
        1: [[text_example(9.0, "only", 4), text_example(1.0, "rest", 5)], []],
        2: [[text_example(1.0, "copy", 6), text_example(0.9, "clone", 7)], []],
        3: [[], []],
        4: [[text_example(3.0, "much", 8), text_example(2.0, "more", 9)], [text_example(-0.2, "faint", 10)]],
    }
    # id, energy, densities, largest |z| of both signs, top feature
    table = [[1, 0.4, 0.1, 0, 9, 0, 5], [0, 0.3, 0.1, 0.2, 0.5, 2, 5], [2, 0.2, 0.1, 0, 1, 0, 5],
             [4, 0.1, 0.1, 0.1, 3, 0.2, 5], [3, 0, 0, 0, 0, 0, 5]]  # fmt: skip
    similar = {0: [[2, 0.97]], 1: [], 2: [[0, 0.97]], 3: [], 4: [[0, 0.5]]}
    details = {
        concept: {
            "features": [[5, 1.0]],
            "similar": similar[concept],
            "together": [],
            "signs": signs[concept],
        }
        for concept in signs
    }
    page = _render(
        title="5 concepts of run", run="run", rows=10, concepts=5, features=6, settings={}, notes=[],
        signs="",
        held_out=0, of_rows=[], of_run=[],
        data=embed({"table": table, "details": details, "images": [], "charts": []}),
    )  # fmt: skip
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    return tmp_path / "page.html"


def test_what_is_rarely_worth_reading_is_marked_last_and_can_be_hidden(browser: Any, crafted: Path) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(crafted.as_uri())
    buttons = page.locator("#concepts tbody button")
    assert buttons.all_inner_texts() == ["0", "4", "1", "2", "3"]
    tags = {
        line.locator("button").inner_text(): line.locator(".tag").all_inner_texts()
        for line in page.locator("#concepts tbody tr").all()
    }
    assert tags == {"0": [], "4": [], "1": ["one example"], "2": ["near duplicate"], "3": ["dead"]}
    page.get_by_label("near duplicate (1)").uncheck()
    page.get_by_label("dead (1)").uncheck()
    assert buttons.all_inner_texts() == ["0", "4", "1"]
    page.close()


def test_the_list_says_in_one_line_what_a_concept_is(browser: Any, crafted: Path) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(crafted.as_uri())
    lines = page.locator("#concepts tbody tr")
    # Its stronger sign, once.
    assert lines.nth(0).locator(".preview.negative").inner_text() == "the deep word"
    assert lines.nth(1).locator(".preview.positive b").all_inner_texts() == ["much", "more"]
    page.close()


def test_a_concept_shows_its_stronger_sign_first_on_its_own_scale(browser: Any, crafted: Path) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(f"{crafted.as_uri()}#concept-0")
    assert page.locator(".sign h3").all_inner_texts() == ["z < 0", "z > 0"]
    assert page.locator(".legend").inner_text().split() == ["z", "=", "-2", "0", "2"]
    opacity = {
        mark.inner_text(): float(
            mark.evaluate("mark => getComputedStyle(mark).backgroundColor").split(",")[3][:-1]
        )
        for mark in page.locator("mark").all()
    }
    assert opacity["deep"] > 2 * opacity["pale"] > 4 * opacity["word"] > 0  # 2 or 1.5, 0.5, 0.05
    assert "corpus" not in page.locator("small").first.inner_text()  # a file name, not its whole path
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#concept h2:text-is('Concept 4')")
    assert page.title() == "Concept 4: much - 5 concepts of run"
    assert page.locator("details.sign.negative").count() == 1  # under a tenth of the other sign: folded
    assert not page.locator("details.sign li").first.is_visible()
    page.keyboard.press("Escape")
    page.wait_for_selector("#concept", state="hidden")
    page.close()
