"""A harvest to disk survives kills, full disks, unreadable examples and several processes."""

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

import numpy as np
import pytest
import tiny_networks as tiny
from commands import ROOT
from harvests import image_recipe, job, text_recipe

from seminmf_lightning.data import HarvestedRows
from seminmf_lightning.harvest import store as store_module


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def command(store: Path, corpus: Path, bert: Path, *more: str) -> list[str]:
    return [
        sys.executable, str(ROOT / "scripts" / "harvest.py"), "model=transformers", f"model.path={bert}",
        "inputs=text", f"inputs.path={corpus}", "layers=[encoder.layer.0,encoder.layer.1]", f"output={store}",
        "shard_mb=0.02", "batch_size=4",
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
    n_shards = len(manifest["layers"]["encoder.layer.0"]["shards"])
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
    assert len(list(killed.glob("encoder.layer.0/index/*.safetensors"))) < n_shards
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
            env=os.environ | dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
            | dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "2"),
            **run,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    assert [process.wait(timeout=120) for process in two] == [0, 0]
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        one, both = (HarvestedRows(str(tmp_path / name), layer=layer, verify=True) for name in ("one", "two"))
        assert np.array_equal(one.open_groups(), both.open_groups())
        assert (one.read_range(0, 10**6) - both.read_range(0, 10**6)).abs().max() < 2e-3  # float16 on disk


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


def test_a_store_that_version_0_1_began_is_resumed_with_a_word_about_its_inputs(tmp_path: Path) -> None:
    folder = tiny.pictures(tmp_path / "images", 6)
    assert job(image_recipe(folder), tmp_path / "store").run() is not None
    file = tmp_path / "store" / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["settings"]["inputs"]["content"]
    manifest["settings"]["inputs"]["digest"] = "0123456789abcdef"
    file.write_text(json.dumps(manifest | {"complete": False}))
    again = job(image_recipe(folder), tmp_path / "store")
    messages: list[str] = []
    again.tell = messages.append
    assert again.run() is not None
    assert (
        "begun by version 0.1" in messages[0]
        and "content" in json.loads(file.read_text())["settings"]["inputs"]
    )
    assert job(image_recipe(folder, layers="first"), tmp_path / "other").run() is not None


def test_an_edit_of_equal_length_is_noticed(tmp_path: Path) -> None:
    folder = tiny.pictures(tmp_path / "images", 6)
    assert job(image_recipe(folder), tmp_path / "store").run() is not None
    content = bytearray((folder / "02.png").read_bytes())
    content[-20] ^= 1
    (folder / "02.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"holds another harvest.*inputs\.content"):
        job(image_recipe(folder), tmp_path / "store").run()
