"""Each row is traced to its token or patch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_networks as tiny
from harvests import image_recipe, job, text_recipe

from seminmf_lightning.harvest import Store, StoreError
from seminmf_lightning.harvest.provenance import PatchOrigin, TokenOrigin, Tracer


def test_inputs_that_changed_are_noticed(tmp_path: Path) -> None:
    folder = tiny.pictures(tmp_path / "pictures", 8)
    assert job(image_recipe(folder), tmp_path / "store").run() is not None
    (folder / "00.png").rename(folder / "zz.png")
    with pytest.raises(StoreError, match=r"holds another harvest.*inputs\.content"):
        job(image_recipe(folder), tmp_path / "store").run()
    tracer = Tracer(Store(tmp_path / "store"))
    with pytest.raises(StoreError, match="the inputs have changed"):
        tracer.image(tracer.origin(0))


def test_every_row_can_be_found_again(bert: Path, corpus: Path, tmp_path: Path) -> None:
    assert job(text_recipe(bert, corpus, tokens="all"), tmp_path / "store", shard_mb=0.02).run() is not None
    tracer, words = Tracer(Store(tmp_path / "store")), []
    seen = [tracer.origin(row) for row in range(len(tracer))]
    assert len(list((tmp_path / "store" / "encoder.layer.1").glob("*.safetensors"))) > 2
    for origin in seen:
        assert isinstance(origin, TokenOrigin)
        if origin.start >= 0:
            words.append(origin.text[origin.start : origin.stop])
            assert f"[[{words[-1]}]]" in str(origin)
        else:
            assert "special token" in str(origin)
    assert words == " ".join(json.loads(line)["text"] for line in corpus.read_text().splitlines()).split()
    with pytest.raises(IndexError, match="row 999999"):
        tracer.origin(999999)


def test_every_patch_can_be_found_again(script, tmp_path: Path) -> None:
    folder = tiny.pictures(tmp_path / "pictures")
    assert job(image_recipe(folder), tmp_path / "store").run() is not None
    tracer = Tracer(Store(tmp_path / "store"))
    boxes = [tracer.origin(row) for row in range(len(tracer))]
    assert all(isinstance(origin, PatchOrigin) and origin.size == (40, 48) for origin in boxes)
    first = [origin.box for origin in boxes if origin.example == 0]
    # The patches tile the image.
    assert sum((bottom - top) * (right - left) for top, left, bottom, right in first) == 40 * 48
    done = script("show_rows", f"store={tmp_path}/store", "rows=[0,5]", f"pictures={tmp_path}/shown")
    assert "00.png: patch [0:" in done.stdout
    assert len(list((tmp_path / "shown").glob("*.png"))) == 2
