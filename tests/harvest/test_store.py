"""Damaged stores, and stores of another harvest, are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harvests import job, text_recipe

from seminmf_lightning.data import HarvestedRows
from seminmf_lightning.harvest import StoreError


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_damaged_or_foreign_store_is_refused(bert: Path, corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    recipe = text_recipe(bert, corpus)
    assert job(recipe, folder, shard_mb=0.05).run() is not None
    before = snapshot(folder)
    with pytest.raises(StoreError, match=r"holds another harvest.*layers.*encoder\.layer\.0"):
        job(text_recipe(bert, corpus, layers="encoder.layer.0"), folder).run()

    def reading(**options: Any) -> int:
        return len(HarvestedRows(str(folder), **options))

    shard, index = (
        sorted((folder / "encoder.layer.1").glob("*.safetensors"))[0],
        folder / "encoder.layer.1" / "index",
    )
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(StoreError, match=r"000000\.safetensors: .* bytes, but the manifest says"):
        reading()
    flipped = bytearray(before["encoder.layer.1/000000.safetensors"])
    flipped[-5] ^= 1
    shard.write_bytes(flipped)
    reading()
    with pytest.raises(StoreError, match="sha256"):
        reading(verify=True)
    (index / "000000.safetensors").unlink()  # what the message says to do
    assert job(recipe, folder, shard_mb=0.05).run() is not None
    assert snapshot(folder) == before
    manifest = json.loads((folder / "manifest.json").read_text())
    for change, words in (
        ({"file": "../../elsewhere.safetensors"}, "leaves the store's folder"),
        ({"harvest": "other"}, "belongs to another"),
        ({"file": "encoder.layer.1/none.safetensors"}, "missing"),
    ):  # fmt: skip
        changed = json.loads(json.dumps(manifest))
        changed["layers"]["encoder.layer.1"]["shards"][0] |= change
        (folder / "manifest.json").write_text(json.dumps(changed))
        with pytest.raises(StoreError, match=words):
            reading()
    (folder / "manifest.json").write_text(json.dumps(manifest | {"complete": False}))
    with pytest.raises(StoreError, match="not finished"):
        reading()
    (index / "000001.safetensors").unlink()
    assert (
        0
        < reading(partial=True)
        < sum(record["rows"] for record in manifest["layers"]["encoder.layer.1"]["shards"])
    )
    (folder / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match="not a manifest"):
        reading()
    (folder / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(StoreError, match=r"manifest\.json: no 'complete'"):
        reading()
    with pytest.raises(FileNotFoundError, match="harvest output="):
        len(HarvestedRows(str(tmp_path / "nowhere")))
