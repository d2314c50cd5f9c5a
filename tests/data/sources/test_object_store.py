"""Rows are fetched once, by the process that needs them, through a bounded cache."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from harvests import small_store
from s3_server import S3, fill, remote, streams
from safetensors.torch import save

from seminmf_lightning.data import ActivationDataModule, HarvestedRows, ObjectStoreRows


def size_of(cache: Path) -> int:
    total = 0
    for file in cache.iterdir():
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            total += file.stat().st_size
    return total


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_process_fetches_its_part_alone(s3: S3, tmp_path: Path, shuffle: bool) -> None:
    rows = torch.randn(4000, 24)
    fill(s3, rows, 1000)
    total, seen = 0, []
    for rank in range(2):
        source = remote(s3, tmp_path / f"cache{rank}")
        (stream,) = streams(source, 2, shuffle=shuffle)[rank : rank + 1]
        s3.reset()
        for A, numbers, _ in stream:
            assert torch.equal(A, rows[numbers])
            seen.append(numbers)
        assert 0.4 < s3.bytes / rows.nbytes < 0.6
        total += s3.bytes
    assert total == rows.nbytes
    assert sorted(torch.cat(seen).tolist()) == list(range(4000))


def test_a_second_pass_and_a_second_run_come_from_the_cache(
    s3: S3, tmp_path: Path, signed: torch.Tensor
) -> None:
    fill(s3, signed)
    source = remote(s3, tmp_path / "cache")
    (stream,) = streams(source, 1, shuffle=True)
    list(stream)
    s3.reset()
    list(stream)
    assert not s3.gets
    (stream,) = streams(remote(s3, tmp_path / "cache"), 1, shuffle=True)
    list(stream)
    assert len(s3.gets) == 4  # the headers


def test_the_cache_stays_below_its_bound(s3: S3, tmp_path: Path) -> None:
    rows, cache = torch.randn(4000, 24), tmp_path / "cache"
    fill(s3, rows, 1000)
    source = remote(s3, cache, cache_gb=0.05 / 1024)
    (stream,) = streams(source, 1, shuffle=True)
    for _ in range(2):
        for A, numbers, _ in stream:
            assert torch.equal(A, rows[numbers])
            assert size_of(cache) <= 0.05 * 2**20
    assert s3.bytes > 1.5 * rows.nbytes


def test_a_resumed_pass_fetches_nothing_of_what_is_behind_it(s3: S3, tmp_path: Path) -> None:
    rows = torch.randn(4000, 24)
    fill(s3, rows, 1000)
    (whole,) = streams(remote(s3, tmp_path / "a"), 1, shuffle=True)
    batches = list(whole)
    (stream,) = streams(remote(s3, tmp_path / "b"), 1, shuffle=True)
    s3.reset()
    stream.load_state_dict({"epoch": 0, "batch": 50})
    rest = list(stream)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(batches[50:], rest, strict=True))
    assert s3.bytes < 0.3 * rows.nbytes  # the last fifth, and the window it begins in


def test_a_sample_takes_few_requests(s3: S3, tmp_path: Path) -> None:
    rows = torch.randn(4000, 24)
    fill(s3, rows, 1000)
    data = ActivationDataModule(remote(s3, tmp_path), sample_rows=640)
    data.setup()
    s3.reset()
    sample = data.sample()
    assert len(sample) == 640
    assert len(s3.gets) <= 70
    again = ActivationDataModule(remote(s3, tmp_path / "other"), sample_rows=640)
    again.setup()
    assert torch.equal(again.sample(), sample)
    assert len(data.held_out_sample(100)) == pytest.approx(100, abs=64)


def test_groups_and_harvests(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, group = torch.randn(300, 8), torch.arange(300) // 10
    for index, part in enumerate((slice(0, 120), slice(120, 300))):
        s3.put(
            f"acts/{index}.safetensors", save({"activations": rows[part].half(), "group": group[part].int()})
        )
    source = remote(s3, tmp_path / "cache")
    groups = source.open_groups()
    assert groups is not None
    assert len(np.unique(groups)) == 30
    data = ActivationDataModule(source, val_fraction=0.2)
    data.setup()
    assert {len(batch[0]) for batch in data.val_dataloader()} == {60}
    stream = io.BytesIO()
    np.save(stream, group.numpy())
    s3.put("groups.npy", stream.getvalue())
    assert np.array_equal(
        remote(s3, tmp_path / "cache", groups="s3://rows/groups.npy").open_groups(), group.numpy()
    )

    store = small_store(tmp_path)
    for file in store.rglob("*"):
        if file.is_file():
            s3.put(f"store/{file.relative_to(store)}", file.read_bytes())
    local = HarvestedRows(str(store))
    for path in ("s3://rows/store", "s3://rows/store/manifest.json"):
        source = remote(s3, tmp_path / "cache", path, verify=True)
        assert torch.equal(source.read(np.arange(len(source))), local.read(np.arange(len(local))))
        assert np.array_equal(source.open_groups(), local.open_groups())
        data = ActivationDataModule(source)
        data.setup()
    with pytest.raises(ValueError, match="has no layer 'other'"):
        len(remote(s3, tmp_path / "cache", "s3://rows/store", layer="other"))
    (shard,) = json.loads((store / "manifest.json").read_text())["layers"][local.layers()[0]]["shards"]
    damaged = bytearray((store / shard["file"]).read_bytes())
    damaged[-1] ^= 1
    s3.put(f"store/{shard['file']}", bytes(damaged))
    source = remote(s3, tmp_path / "cache", "s3://rows/store", verify=True)
    source.verify_share(1, 2)  # the part of the other process
    with pytest.raises(ValueError, match=r"000000\.safetensors: damaged"):
        source.verify_share(0, 2)
    with pytest.raises(ValueError, match=r"data\.verify"):
        remote(s3, tmp_path / "cache", verify=True).verify_share(0, 1)


def test_arguments_are_checked(tmp_path: Path, s3: S3) -> None:
    for options in (
        {"secret": "x"},
        {"client_kwargs": {"aws_secret_access_key": "x"}},
        {"token": "x"},
        {"c": [{"token": "x"}]},
    ):
        with pytest.raises(ValueError, match=r"data\.storage\..*looks like a secret"):
            len(ObjectStoreRows("s3://rows/acts", storage=options))
    with pytest.raises(ValueError, match=r"^data\.path looks like a secret") as refused:
        len(ObjectStoreRows("ftp://me:hush@host/acts/0.npy"))
    assert "hush" not in str(refused.value)
    with pytest.raises(ValueError, match=r"twice data\.shuffle_mb"):
        ObjectStoreRows("s3://rows/acts", cache_gb=0.1)
    with pytest.raises(TypeError, match=r"data\.retries"):
        ObjectStoreRows("s3://rows/acts", retries=1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"data\.path"):
        len(ObjectStoreRows(3))  # type: ignore[arg-type]
    s3.put("acts/a.txt", b"x")
    with pytest.raises(ValueError, match=r"a\.txt: rows come from"):
        len(remote(s3, tmp_path, "s3://rows/acts"))
    for index, dtype in enumerate((torch.float16, torch.float32)):
        s3.put(f"types/{index}.safetensors", save({"x": torch.ones(3, 2, dtype=dtype)}))
    with pytest.raises(ValueError, match=r"1\.safetensors: type float32, but .*0\.safetensors has float16"):
        len(remote(s3, tmp_path, "s3://rows/types"))
    np.save(tmp_path / "a.npy", np.ones((40, 3)))
    assert ActivationDataModule(f"file://{tmp_path}/a.npy").features == 3


def test_every_kind_of_store_gives_the_same_rows(s3: S3, tmp_path: Path, signed: torch.Tensor) -> None:
    import fsspec

    fill(s3, signed)
    for index, part in enumerate(signed.split(170)):
        stream = io.BytesIO()
        np.save(stream, part.numpy().astype(">f4"))
        s3.put(f"npy/{index}.npy", stream.getvalue())
        fsspec.filesystem("memory").pipe(f"/acts/{index}.npy", stream.getvalue())
    for source in (
        remote(s3, tmp_path / "cache"), remote(s3, tmp_path / "cache", "s3://rows/npy"),
        remote(s3, tmp_path / "cache", chunk_mb=8, shuffle_mb=8),
        ObjectStoreRows("memory://acts/*.npy", cache_dir=str(tmp_path / "cache")),
    ):  # fmt: skip
        chosen = np.array([599, 0, 170, 169, 340, 3])
        assert torch.equal(source.read(chosen), signed[chosen])
        assert torch.equal(source.read_range(100, 400), signed[100:400])
