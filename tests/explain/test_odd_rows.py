"""Reports of rows that are constant, few, tiny, huge or unusable, of one concept, of codes all zero."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import ROOT
from hydra import compose, initialize_config_dir

from seminmf_lightning import ActivationDataModule, SemiNMF, SemiNMFModule
from seminmf_lightning.data import NpyRows
from seminmf_lightning.explain import ReportOptions, make_report
from seminmf_lightning.explain.page import _typed_data

RANDOM = np.random.default_rng(0).standard_normal((30, 8))
ODD = {
    "constant": np.full((20, 8), 3.0, np.float32),
    "zeros": np.zeros((20, 8), np.float32),
    "one row": np.arange(8, dtype=np.float32)[None],
    "tiny": (RANDOM * 1e-30).astype(np.float32),
    "large": (RANDOM * 1e18).astype(np.float32),
    "half precision": RANDOM.astype(np.float16),
    "integers": np.arange(80).reshape(10, 8),
    "booleans": RANDOM > 0,
}


def reported(
    folder: Path, rows: np.ndarray, concepts: int = 3, encoder: dict[str, Any] | None = None, **settings: Any
) -> tuple[str, dict[str, Any]]:
    """The page on ``rows`` and its data, for a dictionary that was learned from other rows."""
    model = SemiNMF(nb_concepts=concepts, **settings)
    model.fit(torch.rand(60, 8, generator=torch.Generator().manual_seed(0)), max_iter=3)
    model.save(folder / "run" / "dictionary.safetensors")
    np.save(folder / "rows.npy", rows)
    data = ActivationDataModule(NpyRows(str(folder / "rows.npy")), on_bad_rows="skip", max_skipped=1.0)
    data.prepare_data()
    module = SemiNMFModule.from_run(folder / "run", encoder=encoder).eval()
    page, _ = make_report(module, data, folder / "run", ReportOptions(batch_rows=7))
    embedded = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert embedded is not None
    return page, json.loads(embedded[1])


@pytest.mark.parametrize("penalty", [0.0, 0.05])
@pytest.mark.parametrize("concepts", [1, 5])
@pytest.mark.parametrize("rows", ODD)
def test_odd_rows_have_a_report(rows: str, concepts: int, penalty: float, tmp_path: Path) -> None:
    page, data = reported(tmp_path, ODD[rows], concepts, l1_penalty=penalty)
    assert len(data["table"]) == len(data["details"]) == concepts
    assert not re.search(r"<dd>-?(nan|inf)", page)
    row_ids = {one["row"] for detail in data["details"].values() for sign in detail["signs"] for one in sign}
    assert row_ids <= set(range(len(ODD[rows])))


def test_codes_that_are_all_zero_have_no_examples(tmp_path: Path) -> None:
    strict = {"name": "lasso", "l1_penalty": 1e6}
    page, data = reported(tmp_path, RANDOM, encoder=strict, l1_penalty=0.05)
    assert "<dt>l0</dt><dd>0</dd>" in page
    assert all(
        detail["signs"] == detail["quantiles"] == [[], []] and not detail["together"]
        for detail in data["details"].values()
    )
    assert all(row[1:6] == [0, 0, 0, 0, 0] for row in data["table"])


@pytest.mark.parametrize("bad", [slice(0, 1), slice(0, 30, 2), slice(None)], ids=["one", "half", "all"])
def test_skipped_rows_are_not_counted_and_not_shown(bad: slice, tmp_path: Path) -> None:
    rows = np.abs(RANDOM).astype(np.float32)
    rows[bad] = np.nan
    left = np.flatnonzero(~np.isnan(rows[:, 0]))
    page, data = reported(tmp_path, rows, l1_penalty=0.05)
    assert f"{len(left)} rows of 8 features" in page
    shown = {one["row"] for detail in data["details"].values() for sign in detail["signs"] for one in sign}
    assert shown <= set(left.tolist())
    assert bool(shown) == bool(len(left))


@pytest.mark.parametrize("size", [1e60, 1e170])
def test_rows_beyond_the_range_of_codes_are_refused_by_name(size: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="scale the data"):
        reported(tmp_path, RANDOM * size, l1_penalty=0.05)


@pytest.mark.parametrize(
    ("settings", "determined"),
    [
        ({}, False), ({"normalize": "center", "solver": "hals"}, False), ({"l1_penalty": 0.1}, True),
        ({"encoder": {"name": "omp", "nonzeros": 2}}, True), ({"target_l0": 1.5}, True),
    ],
)  # fmt: skip
def test_a_dense_dictionary_is_said_not_to_be_determined(
    settings: dict[str, Any], determined: bool, tmp_path: Path
) -> None:
    page, _ = reported(tmp_path, RANDOM, **settings)
    notes = re.findall(r'<p class="note">(.*?)</p>', page, re.DOTALL)
    dense = [note for note in notes if "Nothing determines the single atoms" in note]
    assert len(dense) == (not determined)
    if dense:
        assert notes[0] == dense[0]  # above everything else
        typed = f"seminmf train data=npy data.path={tmp_path}/rows.npy nb_concepts=3 l1_penalty=0.1"
        assert f"<code>{typed}</code>" in dense[0]


@pytest.mark.parametrize("name", ["rows.npy", "my rows.npy", "a,b=[c]{d}.npy", "it's $HOME.npy", "ünï.npy"])
def test_the_command_for_readable_atoms_works_as_typed(name: str) -> None:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("train", overrides=shlex.split(_typed_data({}, NpyRows(f"/tmp/{name}"))))
    assert (cfg.data.name, cfg.data.path) == ("npy", f"/tmp/{name}")
