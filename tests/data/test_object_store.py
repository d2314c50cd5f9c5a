"""Rows from an S3 server on loopback, from a local folder by the same source, and from a store that
misbehaves."""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import ROOT, TWO
from harvests import small_store
from hypothesis import given, settings
from hypothesis import strategies as st
from s3_server import DUMMY, S3
from safetensors.torch import load_file, save, save_file

from seminmf_lightning.data import ActivationDataModule, HarvestedRows, ObjectStoreRows, Source, TensorRows
from seminmf_lightning.data.loader import BatchStream
from seminmf_lightning.data.remote.chunk_cache import ChunkCache
from seminmf_lightning.data.remote.headers import npy_layout, safetensors_layouts
from seminmf_lightning.data.sources.base import Chunking, FetchPlan
from seminmf_lightning.data.splits import RowSet, scattered_stretches

pytest.importorskip("s3fs")
SMALL = {
    "chunk_mb": 0.005,
    "shuffle_mb": 0.02,
}  # 54 rows of the fixture `signed` in a chunk, four chunks in a window


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in DUMMY.items():
            patch.setenv(name, value)
        server = S3()
        yield server
        server.server.stop()


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    monkeypatch.setattr("seminmf_lightning.data.remote.objects.FIRST_PAUSE", 0.001)
    server.clear()
    server.reset()
    return server


def fill(s3: S3, rows: torch.Tensor, size: int = 170) -> None:
    for index, part in enumerate(rows.split(size)):
        s3.put(f"acts/{index}.safetensors", save({"activations": part.clone()}))


def remote(
    s3: S3, cache: Path, path: Any = "s3://rows/acts/*.safetensors", **options: Any
) -> ObjectStoreRows:
    return ObjectStoreRows(
        path, storage={"endpoint_url": s3.endpoint}, cache_dir=str(cache), **SMALL | options
    )


@pytest.fixture(params=["s3", "s3 npy", "local", "file", "memory", "one chunk"])
def source(request: pytest.FixtureRequest, s3: S3, tmp_path: Path, signed: torch.Tensor) -> Source:
    if request.param in ("s3", "one chunk"):
        fill(s3, signed)
        return remote(
            s3, tmp_path / "cache", **({} if request.param == "s3" else {"chunk_mb": 8, "shuffle_mb": 8})
        )
    for index, part in enumerate(signed.split(170)):
        np.save(
            tmp_path / f"{index}.npy",
            part.numpy().astype(">f4" if index else "<f4") if request.param == "memory" else part,
        )
    if request.param == "s3 npy":
        for index in range(4):
            s3.put(f"npy/{index}.npy", (tmp_path / f"{index}.npy").read_bytes())
        return remote(s3, tmp_path / "cache", "s3://rows/npy")
    if request.param == "memory":
        import fsspec

        for index in range(4):
            np.save(tmp_path / f"{index}.npy", signed.split(170)[index].numpy().astype(">f4"))
            fsspec.filesystem("memory").pipe(f"/acts/{index}.npy", (tmp_path / f"{index}.npy").read_bytes())
    path = {"local": str(tmp_path), "file": f"file://{tmp_path}/*.npy", "memory": "memory://acts/*.npy"}[
        request.param
    ]
    return ObjectStoreRows(path, cache_dir=str(tmp_path / "cache"), **SMALL)


def streams(
    source: Source, world: int, *, shuffle: bool, rows: RowSet | None = None, **options: Any
) -> list[BatchStream]:
    rows = rows or RowSet.all(len(source))
    return [
        BatchStream(
            source, rows, 64, shuffle=shuffle, seed=1, rank=rank, world=world, any_order=True, **options
        )
        for rank in range(world)
    ]


def size_of(cache: Path) -> int:
    total = 0
    for file in cache.iterdir():
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            total += file.stat().st_size
    return total


# --- order
# -----------------------------------------------------------------------------------------------------------


class Chunked(TensorRows):
    """Rows in memory that behave as if they were fetched: only those that were announced can be read."""

    rows_a_chunk, window = 10, 40

    @property
    def chunking(self) -> Chunking:
        return Chunking(self.rows_a_chunk, self.window)

    def prefetch(self, plan: FetchPlan) -> None:
        self.now = {row for ranges in plan.now for start, stop in ranges for row in range(start, stop)}
        self.fetched = getattr(self, "fetched", set()) | set(plan.now)

    def read(self, rows: np.ndarray) -> torch.Tensor:
        assert set(rows.tolist()) <= self.now
        return super().read(rows)

    def read_range(self, start: int, stop: int) -> torch.Tensor:
        assert set(range(start, stop)) <= self.now
        return super().read_range(start, stop)


@settings(deadline=None)
@given(
    st.integers(1, 300), st.integers(1, 90), st.integers(1, 4), st.booleans(), st.integers(1, 60), st.integers(1, 200),
    st.integers(1, 40), st.integers(1, 40), st.integers(0, 3), st.booleans(),
)  # fmt: skip
def test_every_process_count_sees_the_same_windowed_batches(
    n: int,
    size: int,
    world: int,
    shuffle: bool,
    chunk: int,
    window: int,
    minibatch: int,
    block: int,
    epoch: int,
    gaps: bool,
) -> None:
    rows = RowSet.where(np.arange(n) % 7 != 3) if gaps and n > 4 else RowSet.all(n)

    def batches(rank: int, world: int) -> tuple[list[Any], set[Any]]:
        source = Chunked(torch.arange(float(n))[:, None])
        source.rows_a_chunk, source.window = chunk, window
        stream = BatchStream(
            source, rows, size, shuffle=shuffle, seed=1, rank=rank, world=world, minibatch=minibatch, block=block,
            any_order=True, extra=1,
        )  # fmt: skip
        stream.set_epoch(epoch)
        return list(stream), source.fetched

    one, everything = batches(0, 1)
    parts = [batches(rank, world) for rank in range(world)]
    assert {len(found) for found, _ in parts} == {len(one)}
    assert sum(len(fetched) for _, fetched in parts) == len(everything)  # nothing is fetched twice
    for whole, shares in zip(one, zip(*(found for found, _ in parts), strict=True), strict=True):
        assert torch.equal(whole[0][:, 0].long(), whole[1])
        assert sorted(whole[1].tolist()) == sorted(torch.cat([share[1] for share in shares]).tolist())
        assert torch.equal(whole[2], sum(share[2] for share in shares))
        assert int(whole[2].sum()) == len(whole[0])
        assert (whole[2][:-1] == min(minibatch, size)).all()
    assert sorted(torch.cat([batch[1] for batch in one]).tolist()) == rows.rows(np.arange(len(rows))).tolist()


def test_windows_are_mixed_anew_in_each_pass() -> None:
    source = Chunked(torch.arange(400.0)[:, None])
    (stream,) = streams(source, 1, shuffle=True)
    first, second = ([batch[1] for batch in stream] for _ in range(2))
    assert not torch.equal(torch.cat(first), torch.cat(second))
    assert len(np.unique(first[0] // 10)) >= 4  # a batch has rows of all chunks of a window


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 64))
def test_stretches_of_a_sample_are_disjoint(n: int, count: int, longest: int) -> None:
    found = np.concatenate([np.arange(*one) for one in scattered_stretches(n, count, 64, longest, 0)])
    assert len(np.unique(found)) == len(found)
    assert found.max() < n
    assert len(found) == n if count >= n else count / 2 <= len(found) <= count + 64


# --- what is fetched
# ---------------------------------------------------------------------------------------------------


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


def test_a_damaged_chunk_is_fetched_again(tmp_path: Path) -> None:
    cache, content, fetched = ChunkCache(tmp_path, 1000), np.arange(100, dtype=np.uint8), []

    def fetch() -> bytearray:
        fetched.append(1)
        return bytearray(content)

    path = tmp_path / "a.chunk"
    for damage in (
        None,
        lambda: os.truncate(path, 50),
        lambda: path.write_bytes(bytes(104)),
        lambda: flip(path, 7),
    ):
        if damage:
            damage()
        for _ in range(2):
            assert np.array_equal(cache.get("a", 100, fetch), content)
    assert len(fetched) == 4  # at first, and after each damage


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def test_the_cache_removes_what_was_not_used_for_longest_and_nothing_in_use(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_bytes(bytes(500))
    cache, other = ChunkCache(tmp_path, 3 * 104), ChunkCache(tmp_path, 3 * 104)  # with their checksums
    fetched: list[str] = []

    def get(cache: ChunkCache, name: str) -> Any:
        def fetch() -> bytearray:
            fetched.append(name)
            return bytearray(name.encode() * 100)

        return cache.get(name, 100, fetch)

    a = get(cache, "a")
    for name in "bc":
        get(cache, name)
        time.sleep(0.01)
    get(other, "b")
    get(other, "d")
    assert sorted(path.name for path in tmp_path.glob("*.chunk")) == ["a.chunk", "b.chunk", "d.chunk"]
    b, d = get(cache, "b"), get(cache, "d")
    with pytest.warns(UserWarning, match="data.cache_gb"):
        e = get(cache, "e")
    assert bytes(e) == b"e" * 100
    view = d[:1]
    del d
    with pytest.warns(UserWarning, match="data.cache_gb"):
        get(other, "f")  # a view of d is in use
    del view
    (tmp_path / "left.chunk.partial").touch()
    get(other, "f")
    assert sorted(path.name for path in tmp_path.glob("*.chunk*")) == ["a.chunk", "b.chunk", "f.chunk"]
    assert bytes(a[:1]) + bytes(b[:1]) == b"ab"
    assert fetched == ["a", "b", "c", "d", "e", "f", "f"]
    assert (tmp_path / "mine.txt").exists()


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


# --- what goes wrong
# ---------------------------------------------------------------------------------------------------


def test_one_failed_request_in_twenty_changes_nothing(s3: S3, tmp_path: Path) -> None:
    rows = torch.randn(4000, 24)
    fill(s3, rows, 1000)
    with s3.failing(0.05), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (stream,) = streams(remote(s3, tmp_path / "cache"), 1, shuffle=True)
        for A, numbers, _ in stream:
            assert torch.equal(A, rows[numbers])
    assert s3.failed > 1
    told = [str(one.message) for one in caught if "trying again" in str(one.message)]
    assert 1 <= len(told) <= 4  # once an object
    assert "acts/" in told[0]


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


def test_headers_are_held_against_the_size_of_the_file() -> None:
    def npy(array: Any) -> bytes:
        stream = io.BytesIO()
        np.save(stream, array)
        return stream.getvalue()

    def layout(content: bytes) -> Any:
        return npy_layout("x", len(content), lambda start, stop: content[start:stop])

    def layouts(content: bytes) -> Any:
        return safetensors_layouts("x", len(content), lambda start, stop: content[start:stop])

    whole = npy(np.ones((50, 4)))
    assert layout(whole)[:2] == (128, (50, 4))
    for content, words in (
        (whole[:-1], "truncated"), (whole + b"x", "something else"), (b"", "truncated"), (b"\x93NUMPY", "truncated"),
        (npy(np.ones((5, 4)).T.copy(order="F")), "ascontiguousarray"), (npy(np.ones(3) * 1j), "dtype"),
        (npy(np.array(["a"])), "dtype"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            layout(content)
    many = {
        f"tensor{index:05d}": torch.ones(2, 3).bfloat16() for index in range(2000)
    }  # a header of more than one request
    found = layouts(save(many))
    assert len(found) == 2000
    assert found["tensor00007"].bfloat16
    whole = save({"a": torch.ones(50, 4), "b": torch.ones(3)})
    header = {"a": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}}

    def with_header(**changed: Any) -> bytes:
        text = json.dumps({"a": header["a"] | changed}).encode()
        return len(text).to_bytes(8, "little") + text + bytes(8)

    assert layouts(with_header())["a"].shape == (1, 2)
    for content in (
        whole[:-1], whole + b"x", b"", whole[:5], (2**60).to_bytes(8, "little") + whole[8:],
        b"\x05" + bytes(7) + b"[[[[[" + bytes(9),
        with_header(shape=[2, 2]), with_header(data_offsets=[4, 12]), with_header(shape=[-1, -2]), with_header(dtype=3),
        with_header(data_offsets=[0]), with_header(shape=[1.0, 2]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"x: not a whole \.safetensors file"):
            layouts(content)


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


# --- training
# ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shards(server: S3, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20,000 signed rows of 32 features in float16, on disk; each test uploads them."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(20_000, 6, generator=generator) @ torch.randn(6, 32, generator=generator)
    rows = (rows + 0.3 * torch.randn(20_000, 32, generator=generator)).half()
    folder = tmp_path_factory.mktemp("shards")
    for index, part in enumerate(rows.split(6000)):
        save_file({"activations": part.clone()}, folder / f"{index}.safetensors")
    return folder


def upload(s3: S3, shards: Path) -> None:
    for file in shards.iterdir():
        s3.put(f"acts/{file.name}", file.read_bytes())


def common(penalty: float, place: str) -> list[str]:
    return [
        "data=object_store", f"data.path={place}", "data.chunk_mb=0.125", "data.shuffle_mb=0.5", "data.val_fraction=0",
        "data.sample_rows=1000", "nb_concepts=8", f"l1_penalty={penalty}", "trainer.max_epochs=2", "logger=none",
        "trainer.enable_progress_bar=false",
    ]  # fmt: skip


def trained(tmp_path: Path, name: str, *overrides: str) -> torch.Tensor:
    """D of a run in this process."""
    from hydra import compose, initialize_config_dir

    from seminmf_lightning.cli import train

    os.environ["SEMINMF_RUN_ID"] = "test"
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("train", overrides=[*overrides, f"run_dir={tmp_path}/{name}", "trainer=cpu"])
    train.train(cfg)
    return load_file(tmp_path / name / "dictionary.safetensors")["D"]


@pytest.mark.parametrize("penalty", [0, 0.05])
def test_training_from_s3_is_training_from_a_folder(
    s3: S3, shards: Path, tmp_path: Path, penalty: float
) -> None:
    upload(s3, shards)
    s3_options = [*common(penalty, "s3://rows/acts"), f"data.storage.endpoint_url={s3.endpoint}"]
    local = trained(tmp_path, "local", *common(penalty, str(shards)), f"data.cache_dir={tmp_path}/cache0")
    assert torch.equal(trained(tmp_path, "s3", *s3_options, f"data.cache_dir={tmp_path}/cache1"), local)
    with s3.failing(0.05), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        failing = trained(tmp_path, "failing", *s3_options, f"data.cache_dir={tmp_path}/cache2")
    assert s3.failed > 0
    assert torch.equal(failing, local)


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [0.05, 0])
def test_two_processes_share_the_objects(
    script: Any, s3: S3, shards: Path, tmp_path: Path, penalty: float
) -> None:
    upload(s3, shards)
    options = [*common(penalty, "s3://rows/acts"), f"data.storage.endpoint_url={s3.endpoint}"]
    one = trained(tmp_path, "one", *options, f"data.cache_dir={tmp_path}/cache1")
    s3.reset()
    each = ("+callbacks.each._target_=every_rank.SaveEveryRank", f"+callbacks.each.folder={tmp_path}")
    script(
        "train", *options, f"data.cache_dir={tmp_path}/cache2", f"hydra.run.dir={tmp_path}/two", *TWO, *each,
        PYTHONPATH=f"{ROOT / 'tests/helpers'}:{ROOT}",
    )  # fmt: skip
    assert torch.equal(*(torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)))
    assert (load_file(tmp_path / "two" / "dictionary.safetensors")["D"] - one).abs().max() < 1e-6
    headers = [get for get in s3.gets if get.start == 0]
    fetched = s3.bytes - sum(get.stop for get in headers)
    assert len(headers) == 2 * 4
    assert (
        20_000 * 64 < fetched < (20_000 + 2 * 1100) * 64
    )  # every row once in two passes, the sample by both processes


def test_all_rows_are_seen_as_by_other_sources(s3: S3, shards: Path, tmp_path: Path) -> None:
    upload(s3, shards)
    options = [*common(0, "s3://rows/acts"), "data.sample_rows=20000", f"data.cache_dir={tmp_path}/cache"]
    ours = trained(tmp_path, "ours", *options, f"data.storage.endpoint_url={s3.endpoint}")
    mapped = [one for one in common(0, str(shards)) if "_mb=" not in one and one != "data=object_store"]
    other = trained(tmp_path, "other", "data=safetensors", *mapped, "data.sample_rows=20000")
    assert (ours - other).abs().max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [0, 0.1])
def test_two_million_rows(s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str], penalty: float) -> None:
    """200,000 rows of 384 in float16, or 2,000,000 with SEMINMF_FULL=1: S3 equals the local folder, and what
    it costs."""
    rows = 2_000_000 if os.environ.get("SEMINMF_FULL") else 200_000
    mixing = torch.randn(32, 384, generator=torch.Generator().manual_seed(0))
    (tmp_path / "acts").mkdir()
    for index in range(10):
        generator = torch.Generator().manual_seed(index + 1)
        part = torch.randn(rows // 10, 32, generator=generator) @ mixing + torch.randn(
            rows // 10, 384, generator=generator
        )
        save_file({"activations": part.half()}, tmp_path / "acts" / f"{index}.safetensors")
    upload(s3, tmp_path / "acts")
    figures, found = {}, {}
    folder, bucket = (
        f"data.path={tmp_path}/acts",
        ("data.path=s3://rows/acts", f"data.storage.endpoint_url={s3.endpoint}"),
    )
    for name, options in (
        ("mapped", ("data=safetensors", folder)), ("local", ("data=object_store", folder)),
        ("s3", ("data=object_store", *bucket)), ("failing", ("data=object_store", *bucket)),
    ):  # fmt: skip
        cache = () if name == "mapped" else (f"data.cache_dir={tmp_path}/cache-{name}", "data.cache_gb=0.6")
        s3.reset()
        began = time.monotonic()
        with s3.failing(0.05 if name == "failing" else 0.0), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            more = (
                "nb_concepts=64",
                f"l1_penalty={penalty}",
                "trainer.max_epochs=1",
                "logger=none",
                "~callbacks.progress",
            )
            found[name] = trained(tmp_path, name, *options, *cache, *more)
        figures[name] = json.loads((tmp_path / name / "metrics.json").read_text()) | {
            "seconds": round(time.monotonic() - began, 1), "gets": len(s3.gets), "failed": s3.failed, "bytes": s3.bytes,
        }  # fmt: skip
    with capsys.disabled():
        for name, row in figures.items():
            print(f"\n{rows:,} rows, l1_penalty={penalty}, {name}: {row}")
    assert figures["failing"]["failed"] > 0
    assert torch.equal(found["s3"], found["local"])
    assert torch.equal(found["failing"], found["local"])
    assert figures["s3"]["r2"] == pytest.approx(figures["mapped"]["r2"], abs=0.01)


def test_a_refused_secret_is_in_no_file_of_the_run(script: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = (
        "data=object_store",
        "data.path=s3://rows/acts",
        "+data.storage.client_kwargs.aws_secret_access_key=hush",
    )
    done = script("train", *options, f"hydra.run.dir={run}", check=False)
    assert "data.storage.client_kwargs.aws_secret_access_key looks like a secret" in done.stderr
    assert not any(b"hush" in path.read_bytes() for path in run.rglob("*") if path.is_file())
