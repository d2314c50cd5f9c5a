"""What the report says about given rows, and that nothing in the data gets out of its place."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import ROOT
from hostile_text import MARKUP
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st

from seminmf_lightning import SemiNMF
from seminmf_lightning.core.constraints import CONSTRAINTS
from seminmf_lightning.explain.details import scaled_codes
from seminmf_lightning.explain.page import embed


def test_embedded_data_cannot_end_its_element() -> None:
    text = embed({"a": MARKUP})
    assert "<" not in text and ">" not in text and "&" not in text
    assert json.loads(text) == {"a": MARKUP}


@given(st.floats(-1e6, 1e6), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6))
def test_heat_of_an_example_is_relative_to_its_own_largest_code(first: float, codes: list[float]) -> None:
    z = torch.tensor([first, *codes], dtype=torch.float64)
    heat, peak = scaled_codes(z)
    assert peak == float(z.abs().max())
    assert np.abs(heat).max() == (127 if peak else 0)
    assert np.allclose(heat * peak / 127, z.numpy(), atol=peak / 254 + 1e-300)


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
        return report.main(compose("report", overrides=overrides)).read_text()


def tiles(page: str, kind: str) -> dict[str, str]:
    """Figures by name: ``<dd>`` of these rows, ``<dd class="run">`` of the run."""
    (part,) = re.findall(r'<dl class="metrics">(.*?)</dl>', page, re.DOTALL)
    found = re.findall(r"<div><dt>(\w+)</dt>(.*?)</div>", part)
    values = {name: re.search(f"{kind}([^<]*)</dd>", tile) for name, tile in found}
    return {name: value[1] for name, value in values.items() if value is not None}


def test_figures_of_the_rows_at_hand_stand_beside_those_of_the_run(learned: Path) -> None:
    rows = np.random.default_rng(1).normal(3, 2, size=(200, 24)).astype(np.float32)
    page = written(learned, rows)
    here, run = tiles(page, "<dd>"), tiles(page, '<dd class="run">')
    assert run == {"r2": "0.1235", "rows_seen": "1,234"}
    expected = SemiNMF.load(learned).evaluate(torch.from_numpy(rows))
    assert set(here) == set(expected)
    for name, value in expected.items():
        assert float(here[name]) == pytest.approx(value, rel=1e-3, abs=1e-6), name


def embedded(page: str) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_labels_beside_the_run_or_given_are_on_the_page(learned: Path) -> None:
    rows = np.abs(np.random.default_rng(1).normal(size=(200, 24))).astype(np.float32)
    data = embedded(written(learned, rows))
    assert data["labels"] == {}
    assert json.loads((learned.parent / "automatic_labels.json").read_text()) == {
        "dictionary": data["dictionary"], "labels": {}  # rows that are only numbers have no automatic label
    }  # fmt: skip
    text = json.dumps({"dictionary": data["dictionary"], "labels": {"3": MARKUP}})
    (learned / "labels.json").write_text(text)
    page = written(learned, rows)
    assert embedded(page)["labels"] == {"3": MARKUP.strip()} and MARKUP not in page
    (learned.parent / "mine.json").write_text('{"labels": {"0": "by hand"}}')
    data = embedded(written(learned, rows, f"labels={learned.parent}/mine.json"))
    assert data["labels"] == {"0": "by hand"}
    with pytest.raises(FileNotFoundError, match=r"labels=missing\.json: no such file; a report exports"):
        written(learned, rows, "labels=missing.json")
    for name in ("labels.json", "mine.txt"):
        with pytest.raises(
            ValueError, match=rf"{name}: a report is a page; give a name that ends with \.html"
        ):
            written(learned, rows, f"output={learned}/{name}")
    with pytest.warns(UserWarning, match="no concept has an example in a text: base_url was not asked"):
        written(learned, rows, "base_url=http://127.0.0.1:9/v1", "language_model=small")
    (learned / "labels.json").write_text(text.replace(data["dictionary"], "0" * 16))
    with pytest.warns(UserWarning, match="labels of the dictionary 0000000000000000, but this one is"):
        assert embedded(written(learned, rows))["labels"] == {}


def test_what_concepts_promote_is_shown_where_it_is_known(learned: Path) -> None:
    rows = np.abs(np.random.default_rng(1).normal(size=(200, 24))).astype(np.float32)
    lens = {"2": {"promotes": ["cat", "</script>"], "suppresses": []}}
    file = learned / "logit_lens.json"
    file.write_text(json.dumps({"concepts": lens}))
    data = embedded(written(learned, rows))
    assert data["lens"] == lens
    file.write_text(json.dumps({"dictionary": data["dictionary"], "concepts": lens}))
    assert embedded(written(learned, rows))["lens"] == lens
    file.write_text(json.dumps({"dictionary": "0" * 16, "concepts": lens}))
    with pytest.warns(
        UserWarning, match=r"logit_lens\.json is not shown: it is of the dictionary 0000000000000000"
    ):
        assert embedded(written(learned, rows))["lens"] == {}
    file.write_text('{"concepts": {"2": {"promotes": [1], "suppresses": []}}}')
    with pytest.raises(ValueError, match=r"logit_lens\.json: .*expected a text"):
        written(learned, rows)
    file.write_text('{"concepts": {"999": {"promotes": [], "suppresses": []}}}')
    with pytest.raises(ValueError, match=r"logit_lens\.json: concepts are numbered 0 to .*, found '999'"):
        written(learned, rows)


@pytest.mark.parametrize("signs", CONSTRAINTS)
def test_the_page_follows_the_signs(signs: str, tmp_path: Path) -> None:
    rows = np.abs(np.random.default_rng(1).normal(size=(200, 24))).astype(np.float32)
    model = SemiNMF(5, nonnegative=signs)
    model.fit(rows, max_iter=5)
    model.save(tmp_path / "run" / "dictionary.safetensors")
    page, constraint = written(tmp_path / "run", rows), CONSTRAINTS[signs]
    assert html.escape(str(constraint)) in page
    assert ('"one_sign":true' in page) == constraint.nonnegative_codes
    assert ("only their span" in page) != constraint.nonnegative_codes
    assert ("other nonnegative atoms" in page) == constraint.nonnegative_atoms
    assert (f"nonnegative={signs} l1_penalty=0.1" in page) == (signs != "dictionary")
    columns = json.loads(re.findall(r'"table":(\[\[.*?\]\])', page)[0])
    assert (sum(row[3] for row in columns) == 0) or not constraint.nonnegative_codes


def test_figures_are_as_precise_as_the_rows(tmp_path: Path) -> None:
    rows = (
        np.random.default_rng(1).normal(size=(300, 24)) @ np.random.default_rng(2).normal(size=(24, 24)) + 1e7
    )
    model = SemiNMF(nb_concepts=5, solver="hals")
    model.fit(rows, max_iter=50)
    model.save(tmp_path / "run" / "dictionary.safetensors")
    here = tiles(written(tmp_path / "run", rows), "<dd>")
    assert float(here["r2"]) == pytest.approx(SemiNMF.load(tmp_path / "run").evaluate(rows)["r2"], rel=1e-3)


def test_rows_of_zeros_have_no_spectrum_and_no_examples(learned: Path) -> None:
    page = written(learned, np.zeros((40, 24), np.float32))
    assert "Eckart-Young" not in page
    assert tiles(page, "<dd>")["l0"] == "0"


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
        (("base_url=http://localhost:1/v1",), "base_url needs language_model="),
        (("device=foo",), "device must be auto, cpu, cuda .*got 'foo'"),
    ],
)
def test_keys_of_a_report_are_checked(learned: Path, options: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        written(learned, np.ones((4, 24), np.float32), *options)


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
def test_a_report_of_the_demo_shows_photographs(script, tmp_path: Path) -> None:
    script("train", "data=demo", "nb_concepts=8", "trainer.max_epochs=1", f"hydra.run.dir={tmp_path}/run")
    script("report", f"run={tmp_path}/run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "data:image/jpeg;base64," in page and "Rows are shown by number" not in page
    assert "scripts/train.py data=demo nb_concepts=8 l1_penalty=0.1</code>" in page
