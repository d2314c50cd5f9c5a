"""What the concept browser shows of hand-made concepts: marks, previews, order, labels, signs, colours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hostile_text import MARKUP

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
    median = text_example(0.4, "half", 11) | {"quantile": 0.5}
    details = {
        concept: {
            "features": [[5, 1.0]],
            "similar": similar[concept],
            "together": [],
            "codes": {"low": -2.0, "high": 2.0, "counts": [3, 0, 100, 1]} if concept == 0 else None,
            "signs": signs[concept],
            "quantiles": [[median] if concept == 0 else [], []],
        }
        for concept in signs
    }
    data = {
        "table": table, "details": details, "images": [], "charts": [], "one_sign": False, "sampled": 1,
        "labels": {"2": "a copy"}, "automatic": {"0": "deep", "2": "copy, clone", "4": "much, more"},
        "lens": {"4": {"promotes": ["plenty"], "suppresses": [MARKUP]}}, "dictionary": "0f3a",
    }  # fmt: skip
    page = _render(
        title="5 concepts of run", run="run", rows=10, concepts=5, features=6, settings={}, notes=[],
        signs="", held_out=0, trained=False, metrics=[], data=embed(data),
    )  # fmt: skip
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    return tmp_path / "page.html"


BUTTONS = "#concepts tbody button"


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


def test_concepts_of_punctuation_alone_are_marked_and_last(browser: Any, crafted: Path) -> None:
    text = crafted.read_text()
    for word in ("much", "more"):  # the stronger sign of concept 4
        assert text.count(f"the {word} word") == 1
        text = text.replace(f"the {word} word", "the ---) word")
    assert text.count("the deep word") == 2
    text = text.replace("the deep word", "the ---) word", 1)  # concept 0 has another token, too
    crafted.write_text(text)
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(crafted.as_uri())
    marked = page.locator("#concepts tbody tr:has(.tag:text-is('punctuation')) button")
    assert marked.all_inner_texts() == ["4"]
    page.get_by_label("punctuation (1)").uncheck()
    assert page.locator(BUTTONS).all_inner_texts() == ["0", "1", "2", "3"]
    page.close()


def test_a_label_shows_its_score_where_it_has_one(browser: Any, crafted: Path) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(f"{crafted.as_uri()}#concept-4")
    assert page.locator(".score").count() == 0
    assert "label score" not in page.locator("#sort option").all_inner_texts()
    text = crafted.read_text()
    for concept, energy in ((0, 0.25), (4, 0.5)):
        assert text.count(f'"{concept}":{{"features"') == 1
        text = text.replace(f'"{concept}":{{', f'"{concept}":{{"score":[0.01,{energy},1.0],')
    crafted.write_text(text)
    page.reload()
    assert page.locator(".score").inner_text().split(" of ")[1:3] == [
        "its automatic label are 1 %",
        "the rows and carry 50 %",
    ]
    page.select_option("#sort", "score")
    assert page.locator(BUTTONS).all_inner_texts() == ["4", "0", "1", "2", "3"]
    page.close()


def test_the_space_before_a_word_is_not_marked(browser: Any, crafted: Path) -> None:
    text = crafted.read_text()
    for word in ("much", "more"):
        assert text.count(f'"the {word} word","tokens":[[4,') == 1
        text = text.replace(f'"the {word} word","tokens":[[4,', f'"the {word} word","tokens":[[3,')
    crafted.write_text(text)
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(f"{crafted.as_uri()}#concept-4")
    assert page.locator(".positive mark").all_text_contents() == ["much", "more"]
    assert page.locator(".positive li > span").all_text_contents() == ["the much word", "the more word"]
    page.close()


def test_the_list_says_in_one_line_what_a_concept_is(browser: Any, crafted: Path) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(crafted.as_uri())
    lines = page.locator("#concepts tbody tr")
    # Its stronger sign, once.
    assert lines.nth(0).locator(".line.negative").inner_text() == "the deep word·the deep word"
    assert lines.nth(1).locator(".line.positive b").all_inner_texts() == ["much", "more"]
    assert lines.nth(1).locator(".label.automatic").inner_text() == "much, more"
    assert lines.nth(3).locator(".label:not(.automatic)").inner_text() == "a copy"  # typed, in place of that
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
    assert page.title() == "Concept 4: much, more - 5 concepts of run"
    assert page.locator("details.sign.negative").count() == 1  # under a tenth of the other sign: folded
    assert not page.locator("details.sign li").first.is_visible()
    page.keyboard.press("Escape")
    page.wait_for_selector("#concept", state="hidden")
    page.close()


def test_the_list_is_sorted_and_searched(browser: Any, crafted: Path) -> None:
    page = browser.new_page(viewport={"width": 800, "height": 900})
    page.goto(crafted.as_uri())
    buttons = page.locator(BUTTONS)
    orders = {
        "density": "04123",  # 0.3, 0.2, 0.1, 0.1, 0
        "strength": "14023",
        "balance": "12340",
        "label": "20413",  # "a copy", "deep", "much, more", and those without
        "energy": "10243",
    }
    for order, expected in orders.items():
        page.select_option("#sort", order)
        assert "".join(buttons.all_inner_texts()) == expected, order
    page.select_option("#sort", "strength")
    page.click("#direction")
    assert buttons.first.inner_text() == "3"
    page.select_option("#sort", "reading")
    page.fill("#search", "more")  # fires on it, before its label has it
    assert buttons.all_inner_texts() == ["4"]
    page.fill("#search", "copy")
    assert buttons.all_inner_texts() == ["2"]
    page.fill("#search", "o")  # in a token: only, copy, clone, more; then in the context "word"
    assert buttons.all_inner_texts() == ["4", "1", "2", "0"]
    page.close()


def test_a_label_is_typed_exported_and_loaded_again(browser: Any, crafted: Path, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(f"{crafted.as_uri()}#concept-0")
    page.keyboard.press("l")
    page.keyboard.type(MARKUP)
    page.keyboard.press("Enter")
    assert page.locator("#concepts tr.chosen .label:not(.automatic)").inner_text().split() == MARKUP.split()
    page.keyboard.press("ArrowRight")  # out of the field, keys go through the concepts
    page.wait_for_selector("#concept h2:text-is('Concept 4')")
    page.reload()
    assert page.inner_text("#export") == "Export labels (2)"  # kept in this browser
    with page.expect_download() as download:
        page.click("#export")
    download.value.save_as(tmp_path / "labels.json")
    labels = json.loads((tmp_path / "labels.json").read_text())
    assert labels == {"dictionary": "0f3a", "labels": {"0": MARKUP.strip()[:200].strip(), "2": "a copy"}}
    assert page.evaluate("window.hacked") is None
    page.close()
    other = browser.new_context().new_page()
    other.goto(f"{crafted.as_uri()}#concept-0")
    assert other.input_value("#label") == ""
    (tmp_path / "labels.json").write_text('{"dictionary": "0f3a", "labels": {"0": "depth", "9": "none"}}')
    other.set_input_files("#load", tmp_path / "labels.json")
    other.wait_for_selector("#concepts .label:text-is('depth')")
    assert other.input_value("#label") == "depth"
    other.wait_for_selector("#loaded:has-text(': 1 labels, 1 left out that name no concept here: 9')")
    for wrong in ('["a", "b"]', '{"labels": ["a", "b"]}', '{"labels": "ab"}', "null"):
        (tmp_path / "wrong.json").write_text(wrong)
        other.set_input_files("#load", tmp_path / "wrong.json")
        other.wait_for_selector("#loaded:has-text('wrong.json was not loaded: it holds no {')")
        (tmp_path / "odd.json").write_text('{"labels": {"": "x", "01": "x", "1.0": "x", "0": 5}}')
        other.set_input_files("#load", tmp_path / "odd.json")
        other.wait_for_selector("#loaded:has-text('odd.json: 0 labels, 4 left out')")
    (tmp_path / "labels.json").write_text('{"dictionary": "another", "labels": {"0": "height"}}')
    other.set_input_files("#load", tmp_path / "labels.json")
    other.wait_for_selector("#loaded:has-text('labels of another dictionary')")
    assert other.input_value("#label") == "depth"
    other.context.close()


def test_a_concept_shows_its_codes_quantiles_and_what_it_promotes(browser: Any, crafted: Path) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(f"{crafted.as_uri()}#concept-0")
    heights = [float(bar.get_attribute("height")) for bar in page.locator("#concept rect").all()]
    assert len(heights) == 3 and heights[1] / 5 < heights[0] < heights[1]  # 3 and 100 rows, on a log axis
    assert heights[2] > 0  # a single row is seen
    assert page.locator(".quantiles small").inner_text().startswith("50 %: z = 0.400")
    similar = page.locator(".chips button").first
    assert similar.inner_text() == "2 a copy 0.970"
    similar.click()
    page.wait_for_selector("#concept h2:text-is('Concept 2')")
    page.evaluate("location.hash = '#concept-4'")
    page.wait_for_selector("#concept h2:text-is('Concept 4')")
    assert page.locator(".chips code").all_inner_texts()[0] == "plenty"
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 800, 360])
def test_a_concept_opens_beside_the_list_or_in_its_place(
    browser: Any, crafted: Path, width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 700}, color_scheme=scheme)
    page.goto(crafted.as_uri())
    page.locator(BUTTONS).first.click()
    page.wait_for_selector("#concept h2")
    assert page.locator("#concepts").is_visible() == (width == 1400)
    assert page.locator("#concept h2").bounding_box()["y"] < 700  # in view
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "it scrolls sideways"
    ink, paper = (
        page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor")
    )
    brightness = [sum(map(int, value.removeprefix("rgb(").rstrip(")").split(","))) for value in (ink, paper)]
    assert (brightness[0] < brightness[1]) == (scheme == "light")
    page.go_back()
    page.wait_for_selector("#concept", state="hidden")
    assert page.locator("#concepts").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()
