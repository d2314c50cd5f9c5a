"""Failed requests are repeated; what cannot succeed, or has changed, is an error that names the object."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from s3_server import S3, fill, remote, streams
from safetensors.torch import save

from seminmf_lightning.data import ObjectStoreRows

SMALL = {"chunk_mb": 0.005, "shuffle_mb": 0.02}


def test_one_failed_request_in_twenty_changes_nothing(s3: S3, tmp_path: Path) -> None:
    rows = torch.randn(4000, 24)
    fill(s3, rows, 1000)
    with s3.failing(0.05), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (stream,) = streams(remote(s3, tmp_path / "cache"), 1, shuffle=True)
        for A, numbers, _ in stream:
            assert torch.equal(A, rows[numbers])
    assert s3.failed > 1
    messages = [str(one.message) for one in caught if "trying again" in str(one.message)]
    assert 1 <= len(messages) <= 4  # one per object
    assert "acts/" in messages[0]


def test_a_store_that_is_down_is_an_error_that_names_the_object(
    s3: S3, tmp_path: Path, signed: torch.Tensor
) -> None:
    fill(s3, signed)
    source = remote(s3, tmp_path / "cache", retries=3)
    assert len(source) == 600
    began = time.monotonic()
    with (
        s3.failing(1.0, 503),
        pytest.warns(UserWarning, match="trying again"),
        pytest.raises(OSError, match="after 4 tries") as error,
    ):
        list(*streams(source, 1, shuffle=True))
    assert "s3://rows/acts/" in str(error.value)
    assert "bytes" in str(error.value)
    gone = ObjectStoreRows(
        "s3://rows/acts",
        storage={"endpoint_url": "http://127.0.0.1:9"},
        cache_dir=str(tmp_path / "cache"),
        retries=2,
    )
    with (
        pytest.warns(UserWarning, match="trying again"),
        pytest.raises(OSError, match=r"s3://rows/acts: not read after 3 tries"),
    ):
        len(gone)
    assert time.monotonic() - began < 10


def test_a_short_answer_counts_as_a_failure(
    tmp_path: Path, signed: torch.Tensor, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(s3, signed)
    source = remote(s3, tmp_path / "cache", retries=2)
    assert len(source) == 600
    whole, calls = source._remote.fs.cat_file, []

    def short(path: str, start: int, end: int) -> bytes:
        calls.append(path)
        return whole(path, start=start, end=end - (len(calls) in wrong))

    monkeypatch.setattr(source._remote.fs, "cat_file", short)
    wrong: Any = {1, 2}
    with pytest.warns(UserWarning, match="trying again"):
        assert torch.equal(source.read(np.arange(40)), signed[:40])
    wrong = range(1000)
    with pytest.raises(OSError, match=r"acts/3\.safetensors, bytes .* after 3 tries.* bytes came"):
        source.read(np.arange(560, 600))
    wrong = ()
    assert torch.equal(source.read(np.arange(560, 600)), signed[560:])  # the store is up again


def test_what_is_refused_or_missing_fails_at_once(s3: S3, tmp_path: Path, signed: torch.Tensor) -> None:
    fill(s3, signed)
    with (
        s3.failing(1.0, 403),
        pytest.raises(PermissionError, match=r"acts/\d\.safetensors.*AWS_ACCESS_KEY_ID"),
    ):
        len(remote(s3, tmp_path / "cache"))
    assert s3.failed <= 8
    with pytest.raises(FileNotFoundError, match="none"):
        len(remote(s3, tmp_path / "cache", "s3://rows/none"))
    with pytest.raises(FileNotFoundError, match="matches no object"):
        len(remote(s3, tmp_path / "cache", "s3://rows/acts/*.npy"))
    with pytest.raises(FileNotFoundError, match="nobucket"):
        len(remote(s3, tmp_path / "cache", "s3://nobucket/acts/0.npy"))
    source = remote(s3, tmp_path / "cache")
    len(source)
    s3.client.delete_object(Bucket="rows", Key="acts/2.safetensors")
    with pytest.raises(FileNotFoundError, match=r"acts/2\.safetensors"):
        list(*streams(source, 1, shuffle=True))


@pytest.mark.parametrize("longer", [False, True])
def test_an_object_that_is_replaced_while_it_is_read_is_refused(s3: S3, tmp_path: Path, longer: bool) -> None:
    rows = torch.randn(4000, 24)
    fill(s3, rows, 1000)
    (stream,) = streams(remote(s3, tmp_path / "cache"), 1, shuffle=True)
    batches = iter(stream)
    next(batches)
    for index in range(4):
        s3.put(f"acts/{index}.safetensors", save({"activations": torch.randn(1000 + longer, 24)}))
    with pytest.raises(ValueError, match=r"acts/\d\.safetensors: replaced while it was being read"):
        list(batches)


def test_a_local_file_that_is_cut_while_it_is_read_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).standard_normal((4000, 24)))
    source = ObjectStoreRows(str(tmp_path / "a.npy"), cache_dir=str(tmp_path / "cache"), **SMALL)
    (stream,) = streams(source, 1, shuffle=False)
    batches = iter(stream)
    next(batches)
    os.truncate(tmp_path / "a.npy", 1000)
    with pytest.raises(ValueError, match=r"a\.npy: replaced"):
        list(batches)
