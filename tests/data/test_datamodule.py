"""Every source reads the same rows; batches cover them once; bad files are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from seminmf_lightning.data import (
    ActivationDataModule,
    HarvestedRows,
    NpyRows,
    ObjectStoreRows,
    SafetensorsRows,
    Source,
    TensorRows,
)
from seminmf_lightning.data.loader import BatchStream
from seminmf_lightning.data.splits import RowSet, hold_out, shuffled
from seminmf_lightning.harvest import HarvestJob, HarvestRecipe, Store


@pytest.fixture(params=["npy", "npy shards", "safetensors", "tensor", "store", "object store"])
def source(request: pytest.FixtureRequest, tmp_path: Path, signed: torch.Tensor) -> Source:
    if request.param == "npy":
        np.save(tmp_path / "a.npy", signed.numpy())
        return NpyRows(str(tmp_path / "a.npy"))
    if request.param in ("npy shards", "object store"):
        for index, part in enumerate(signed.split(170)):
            np.save(tmp_path / f"{index}.npy", part.numpy())
        if request.param == "object store":
            return ObjectStoreRows(
                f"file://{tmp_path}/*.npy", cache_dir=str(tmp_path / "cache"), chunk_mb=0.01
            )
        return NpyRows(str(tmp_path / "*.npy"))
    if request.param == "safetensors":
        for index, part in enumerate(signed.split(170)):
            save_file({"activations": part.clone()}, tmp_path / f"{index}.safetensors")
        return SafetensorsRows(str(tmp_path))
    if request.param == "store":
        np.save(tmp_path / "x.npy", signed.numpy())
        recipe = HarvestRecipe(
            {"name": "callable", "target": "torch.nn:Sequential"},
            {"name": "tensors", "path": str(tmp_path / "x.npy")},
            "0",
        )
        recipe.loaded.network.append(torch.nn.Identity())
        harvester = recipe.harvester(torch.device("cpu"))
        settings = recipe.settings(harvester.layers)
        store = Store(tmp_path / "store")
        HarvestJob(harvester, store, settings, dtype="float32", shard_mb=0.01, tell=lambda text: None).run()
        return HarvestedRows(str(tmp_path / "store"))
    return TensorRows(signed)


def test_rows_are_the_rows(source: Source, signed: torch.Tensor) -> None:
    assert (len(source), source.features) == (600, 24)
    rows = np.array([599, 0, 170, 169, 340, 3])
    assert torch.equal(source.read(rows), signed[torch.from_numpy(rows)])
    assert torch.equal(source.read_range(100, 400), signed[100:400])
    assert "row" in source.where(599)


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int16", "uint8", "uint16", "int64", ">f4"]
)
def test_number_types(tmp_path: Path, dtype: str) -> None:
    array = np.arange(20).reshape(5, 4).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    source = NpyRows(str(tmp_path / "a.npy"))
    assert torch.equal(source.read(np.arange(5)).double(), torch.arange(20.0).reshape(5, 4).double())
    assert torch.equal(source.read_range(1, 3).double(), torch.arange(20.0).reshape(5, 4)[1:3].double())


def test_bfloat16(tmp_path: Path) -> None:
    save_file({"x": torch.arange(8).reshape(4, 2).bfloat16()}, tmp_path / "a.safetensors")
    assert SafetensorsRows(str(tmp_path / "a.safetensors")).read(np.array([3])).tolist() == [[6.0, 7.0]]


@given(st.integers(1, 500), st.integers(0, 5), st.integers(0, 5))
def test_shuffled_is_a_permutation(n: int, seed: int, epoch: int) -> None:
    assert sorted(shuffled(np.arange(n), n, seed, epoch)) == list(range(n))


@given(st.integers(2, 400), st.floats(0.01, 0.9), st.integers(0, 5), st.booleans())
def test_held_out_rows_are_disjoint_and_complete(n: int, fraction: float, seed: int, grouped: bool) -> None:
    groups = np.arange(n) // 3 if grouped else None
    try:
        train, held = hold_out(n, fraction, seed, groups)
    except ValueError:
        return
    rows = [part.rows(np.arange(len(part))) for part in (train, held)]
    assert sorted(np.concatenate(rows)) == list(range(n))
    assert len(held) >= 1
    if grouped:
        assert not set(groups[rows[0]]) & set(groups[rows[1]])


@given(st.integers(1, 90), st.integers(1, 40), st.integers(1, 4), st.booleans())
def test_every_process_count_sees_the_same_global_batches(
    n: int, size: int, world: int, shuffle: bool
) -> None:
    source = TensorRows(torch.arange(float(n))[:, None])
    one = list(BatchStream(source, RowSet.all(n), size, shuffle=shuffle, seed=1))
    ranks = [
        list(BatchStream(source, RowSet.all(n), size, shuffle=shuffle, seed=1, rank=r, world=world))
        for r in range(world)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    for whole, parts in zip(one, zip(*ranks, strict=True), strict=True):
        assert torch.equal(whole[0], torch.cat([part[0] for part in parts]))
        assert torch.equal(whole[0][:, 0].long(), whole[1])
    assert sorted(torch.cat([batch[1] for batch in one]).tolist()) == list(range(n))


def test_a_stream_resumes_where_it_was() -> None:
    def stream() -> BatchStream:
        return BatchStream(TensorRows(torch.arange(50.0)[:, None]), RowSet.all(50), 8, shuffle=True, seed=3)

    whole = stream()
    batches = list(whole) + list(whole)
    resumed = stream()
    iterator = iter(resumed)
    for _ in range(3):
        next(iterator)
    other = stream()
    other.load_state_dict(resumed.state_dict())
    rest = list(other) + list(other)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(batches[3:], rest, strict=True))


def test_bad_files_are_named(tmp_path: Path) -> None:
    def reading(path: object) -> None:
        len(NpyRows(str(path)))

    with pytest.raises(FileNotFoundError, match="matches no file"):
        reading(tmp_path / "none*.npy")
    (tmp_path / "empty.npy").touch()
    with pytest.raises(ValueError, match=r"empty\.npy.*truncated"):
        reading(tmp_path / "empty.npy")
    np.save(tmp_path / "whole.npy", np.ones((50, 4)))
    data = (tmp_path / "whole.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(data[:-100])
    with pytest.raises(ValueError, match=r"cut\.npy.*truncated"):
        reading(tmp_path / "cut.npy")
    for name, array, words in (
        ("flat", np.ones(4), "1-D"), ("cube", np.ones((2, 3, 4)), "flatten"), ("none", np.ones((0, 4)), "empty"),
        ("words", np.array([["a"]]), "dtype"), ("complex", np.ones((2, 2)) * 1j, "dtype"),
    ):  # fmt: skip
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(ValueError, match=f"{name}.*{words}"):
            reading(tmp_path / f"{name}.npy")
    np.save(tmp_path / "w1.npy", np.ones((2, 3)))
    np.save(tmp_path / "w2.npy", np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"w2\.npy: rows of 4 features, but .*w1\.npy has 3"):
        reading(tmp_path / "w?.npy")
    (tmp_path / "cut.safetensors").write_bytes(b"\x00" * 5)
    with pytest.raises(ValueError, match=r"cut\.safetensors"):
        len(SafetensorsRows(str(tmp_path / "cut.safetensors")))


def test_a_row_that_is_not_finite_is_named(tmp_path: Path) -> None:
    array = np.ones((40, 3), dtype=np.float32)
    array[17, 1] = np.nan
    np.save(tmp_path / "a.npy", array)
    data = ActivationDataModule(str(tmp_path / "a.npy"), val_fraction=0)
    data.setup()
    with pytest.raises(ValueError, match=r"a\.npy, row 17: feature 1 is nan"):
        data.sample()


def test_arguments_are_checked() -> None:
    rows = torch.ones(4, 2)
    with pytest.raises(ValueError, match=r"data\.val_fraction"):
        ActivationDataModule(rows, val_fraction=1.0)
    with pytest.raises(TypeError, match=r"data\.batch_size"):
        ActivationDataModule(rows, batch_size="many")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ActivationDataModule(rows, batchsize=3)  # type: ignore[call-arg]
