"""The row that reacts to a bright patch has a box around it, or no position, whatever a layer returns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harvests import CPU, all_rows, image_recipe, job

from seminmf_lightning.harvest import Store
from seminmf_lightning.harvest.harvester import Harvester
from seminmf_lightning.harvest.probe import CENTRES, probe_images
from seminmf_lightning.harvest.provenance import PatchOrigin, Tracer
from seminmf_lightning.harvest.row_selection import Rows

SIZE = (48, 64)
"""Height and width of the images: 6 x 8 patches."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two grey images, of which the second has a bright square at (20, 44)."""
    from PIL import Image

    images = np.full((2, *SIZE, 3), 100, dtype=np.uint8)
    images[1, 17:23, 41:47] = (255, 0, 255)
    (tmp_path / "images").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "images" / f"{number}.png")
    return tmp_path / "images"


def recipe(folder: Path, order: str, layers: str = "block", **options: Any) -> Any:
    network = {key: options.pop(key) for key in ("prefix", "suffix", "width") if key in options}
    recipe = image_recipe(folder, "tiny_image_networks:patches", layers=layers, **options)
    recipe.model.options = {"order": order} | network
    return recipe


def rows_of(folder: Path, order: str, **options: Any) -> tuple[Harvester, Rows]:
    harvester = recipe(folder, order, **options).harvester(CPU)
    return harvester, all_rows(harvester)["block"]


def strongest(rows: Rows) -> tuple[int, ...]:
    """Patch (y, x) of the row that differs most between the two images, and its grid."""
    plain, bright = rows.values.chunk(2)
    row = len(plain) + int((bright - plain).norm(dim=1).argmax())
    return tuple(int(rows.origin[name][row]) for name in ("y", "x", "height", "width"))


@pytest.mark.parametrize(("prefix", "suffix"), [(0, 0), (1, 0), (2, 0), (5, 0), (1, 10), (3, 4)])
def test_special_tokens_that_no_library_tells_of_are_found(folder: Path, prefix: int, suffix: int) -> None:
    harvester, rows = rows_of(folder, "sequence", prefix=prefix, suffix=suffix)
    assert harvester.layouts["block"]._asdict() == {
        "channels_last": False, "prefix": prefix, "suffix": suffix, "unplaced": None
    }  # fmt: skip
    assert len(rows.values) == 2 * 48
    assert strongest(rows) == (2, 5, 6, 8)
    everything = rows_of(folder, "sequence", prefix=prefix, suffix=suffix, tokens="all")[1]
    assert len(everything.values) == 2 * (48 + prefix + suffix)
    assert (everything.origin["y"] < 0).sum() == 2 * (prefix + suffix)


@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("width", [6, 8, 12])
def test_the_axis_of_channels_is_found_even_where_its_length_misleads(
    folder: Path, order: str, width: int
) -> None:
    harvester, rows = rows_of(folder, order, width=width)
    assert harvester.layouts["block"].channels_last == (order == "last")
    assert rows.values.shape == (2 * 48, width)
    assert strongest(rows) == (2, 5, 6, 8)


def test_rows_in_another_order_get_no_place_and_the_manifest_says_why(folder: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    written = job(recipe(folder, "unrolled"), tmp_path / "store")
    written.tell = messages.append
    assert written.run() is not None
    assert any("layer block: its rows have no position in the image" in message for message in messages)
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    assert "other rows than its own" in manifest["plan"]["layouts"]["block"]["unplaced"]
    tracer = Tracer(Store(tmp_path / "store"))
    assert len(tracer) == 2 * 48
    origin = tracer.origin(7)
    assert isinstance(origin, PatchOrigin) and origin.box is None
    assert "position 7, unknown location in the image of 48 x 64" in str(origin)


@pytest.mark.parametrize("order", ["heads", "attention", "blocks"])
def test_heads_attention_maps_and_blocks_are_refused_unless_the_axes_are_given(
    folder: Path, order: str
) -> None:
    with pytest.raises(ValueError, match=r"layer block gives \(.*\) per image.*layout=channels_last"):
        rows_of(folder, order, prefix=1)
    harvester, rows = rows_of(folder, order, prefix=1, layout="channels_last")
    assert harvester.layouts["block"].unplaced is not None
    assert (rows.origin["y"] == -1).all()


def test_square_attention_maps_are_not_taken_for_square_images(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64), (90, 90, 90)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"layer block gives \(3, 64, 64\) per image"):
        rows_of(tmp_path, "attention")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
@pytest.mark.parametrize("constant", [True, False])
def test_bright_patches_differ_from_the_neutral_image(dtype: torch.dtype, constant: bool) -> None:
    image = torch.full((3, 30, 40), 7) if constant else torch.randint(0, 255, (3, 30, 40))
    neutral, *bright = probe_images(image.to(dtype))
    assert neutral.dtype == dtype
    for one, (y, x) in zip(bright, CENTRES, strict=True):
        differs = (one != neutral).any(dim=0).nonzero().double().mean(dim=0) + 0.5
        assert differs.tolist() == pytest.approx([30 * y, 40 * x], abs=1.6)


def test_windows_folded_into_the_batch_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"its first axis is not the batch.*windows"):
        rows_of(folder, "windows")


@pytest.mark.parametrize("tokens", ["no_special", "cls", "mean", "all"])
def test_a_class_token_alone_is_a_row_of_the_whole_image(folder: Path, tokens: str) -> None:
    _, rows = rows_of(folder, "class token", prefix=1, tokens=tokens)
    assert len(rows.values) == 2
    assert (rows.origin["y"] == -1).all() and (rows.origin["position"] == -1).all()


@pytest.mark.parametrize(
    ("order", "reason"), [("mixed", "every position reacts alike"), ("constant", "does not react")]
)
def test_layers_that_hold_no_place_are_harvested_without_one(folder: Path, order: str, reason: str) -> None:
    harvester, rows = rows_of(folder, order)
    assert reason in str(harvester.layouts["block"].unplaced)
    assert rows.values.shape == (2 * 48, 12)
    assert (rows.origin["y"] == -1).all()


def test_a_resumed_harvest_takes_the_layouts_of_its_plan(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert job(recipe(folder, "sequence", prefix=2), tmp_path / "store").run() is not None
    before = (tmp_path / "store" / "block" / "index" / "000000.safetensors").read_bytes()
    (tmp_path / "store" / "block" / "index" / "000000.safetensors").unlink()
    monkeypatch.setattr("seminmf_lightning.harvest.harvester.probe_layouts", None)
    assert job(recipe(folder, "sequence", prefix=2), tmp_path / "store").run() is not None
    assert (tmp_path / "store" / "block" / "index" / "000000.safetensors").read_bytes() == before


def test_the_probe_changes_neither_rows_nor_random_numbers(folder: Path) -> None:
    harvester = recipe(folder, "first").harvester(CPU)
    items = [read.items[0] for read in harvester.read(range(2))]
    state = torch.random.get_rng_state()
    (rows, *_), *_ = harvester.run(items).values()
    assert harvester.layouts and torch.equal(torch.random.get_rng_state(), state)
    direct: list[torch.Tensor] = []
    network = harvester.loaded.network
    network.block.register_forward_hook(lambda module, args, output: direct.append(output))
    with torch.no_grad():
        harvester.loaded.feed.call(network, items, CPU)
    assert torch.equal(rows.values, direct[0].permute(0, 2, 3, 1).flatten(0, 2))
