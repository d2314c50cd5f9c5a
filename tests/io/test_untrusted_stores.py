"""Harvest stores from elsewhere never leave their folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from seminmf_lightning.data import HarvestedRows
from seminmf_lightning.harvest import Store


@pytest.mark.parametrize("key", ["file", "index"])
@pytest.mark.parametrize(
    "escape", ["../../etc/passwd", "/etc/passwd", "0/../../outside.safetensors", "link/0.safetensors"]
)
def test_a_manifest_cannot_leave_its_folder(key: str, escape: str, harvested: Path, tmp_path: Path) -> None:
    store, outside = tmp_path / "store", tmp_path / "outside"
    shutil.copytree(harvested, store)
    outside.mkdir()
    shutil.copy(store / "0" / "000000.safetensors", outside / "0.safetensors")
    shutil.copy(store / "0" / "000000.safetensors", tmp_path / "outside.safetensors")
    (store / "link").symlink_to(outside)
    manifest = json.loads((store / "manifest.json").read_text())
    manifest["layers"]["0"]["shards"][0][key] = escape
    (store / "manifest.json").write_text(json.dumps(manifest))
    source = HarvestedRows(str(store))
    with pytest.raises(ValueError, match=r"leaves the store's folder .* it was not opened"):
        source.open() if key == "file" else source.open_groups()


@pytest.mark.parametrize(
    "file", ["0/000000.safetensors", "0/index/000000.safetensors", "examples/000000.jsonl"]
)
def test_links_out_of_a_store_are_not_followed(file: str, harvested: Path, tmp_path: Path) -> None:
    store, outside = tmp_path / "store", tmp_path / "outside"
    shutil.copytree(harvested, store)
    shutil.move(store / file, outside)
    (store / file).symlink_to(outside)
    readers: Any = (
        HarvestedRows(str(store)).open, HarvestedRows(str(store)).open_groups,
        lambda: Store(store).columns("0", 0), lambda: Store(store).examples(0),
    )  # fmt: skip
    told = []
    for read in readers:
        try:
            read()
        except ValueError as error:
            told.append(str(error))
    assert told and all("leaves the store's folder" in text for text in told)


MANIFESTS: dict[str, Any] = {
    "no 'shards'": lambda m: m["layers"]["0"].pop("shards"),
    r"shards\[0\].rows: expected a whole number": lambda m: m["layers"]["0"]["shards"][0].update(rows="4"),
    "lists . shards; its plan has": lambda m: m["layers"]["0"]["shards"].pop(),
    "rows, but its shards have": lambda m: m["layers"]["0"].update(rows=3),
    "examples_per_shard": lambda m: m["plan"].update(examples_per_shard=0),
    "features": lambda m: m["layers"]["0"].update(features=0),
    "format 2": lambda m: m.update(format=2),
    "not a range": lambda m: m["layers"]["0"]["shards"][0].update(examples=[1]),
    "settings": lambda m: m.update(settings=[]),
}


@pytest.mark.parametrize("words", MANIFESTS)
def test_a_manifest_of_another_form_is_refused(words: str, harvested: Path, tmp_path: Path) -> None:
    manifest = json.loads((harvested / "manifest.json").read_text())
    MANIFESTS[words](manifest)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=rf"manifest\.json: .*{words}"):
        HarvestedRows(str(tmp_path)).open()


def test_a_plan_without_end_does_not_hang(harvested: Path, tmp_path: Path) -> None:
    manifest = json.loads((harvested / "manifest.json").read_text())
    manifest |= {"complete": False}
    manifest["plan"] |= {"examples": 2**62, "examples_per_shard": 1, "widths": {"0": 2**62}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="holds no rows yet"):
        HarvestedRows(str(tmp_path), partial=True).open()
