"""Every type of number is read; bad files are named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seminmf_lightning.data import NpyRows, ObjectStoreRows


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    "dtype", ["f2", "f4", "f8", "i2", "u1", "u2", "i8", ">f4", ">f2", ">f8", ">i4", ">u2", "g"]
)
def test_number_types(tmp_path: Path, dtype: str, order: Any) -> None:
    array = np.arange(20).reshape(5, 4).astype(dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    source = NpyRows(str(tmp_path / "a.npy"))
    assert torch.equal(source.read(np.arange(5)).double(), torch.arange(20.0).reshape(5, 4).double())
    assert torch.equal(source.read_range(1, 3).double(), torch.arange(20.0).reshape(5, 4)[1:3].double())


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
        ("flat", np.ones(4), "1-D"), ("cube", np.ones((2, 3, 4)), "flatten"),
        ("none", np.ones((0, 4)), "empty"),
        ("words", np.array([["a"]]), "dtype"), ("complex", np.ones((2, 2)) * 1j, "dtype"),
    ):  # fmt: skip
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(ValueError, match=f"{name}.*{words}"):
            reading(tmp_path / f"{name}.npy")
    np.save(tmp_path / "w1.npy", np.ones((2, 3)))
    np.save(tmp_path / "w2.npy", np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"w2\.npy: rows of 4 features, but .*w1\.npy has 3"):
        reading(tmp_path / "w?.npy")


def anonymous_mb() -> int:
    """Memory of this process that is not a file's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) // 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_file_in_the_other_byte_order_stays_on_disk(tmp_path: Path, order: str) -> None:
    shape = (200_000, 100)
    array = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", ">f4", shape, fortran_order=order == "F")
    array[::1000] = np.arange(200)[:, None]
    array.flush()
    del array
    before = anonymous_mb()
    source = NpyRows(str(tmp_path / "a.npy"))
    assert len(source) == 200_000
    assert source.read(np.array([3000, 1, 199_000]))[:, 5].tolist() == [3, 0, 199]
    assert source.read_range(1000, 1002)[:, 99].tolist() == [1, 0]
    assert source.converts
    assert anonymous_mb() - before < 40  # of 76


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.array([[1, "a"], [2, "b"]], dtype=object), "dtype object"), (np.ones((3, 0)), "empty"),
        (np.array([(1.0, 2)], dtype=[("x", "f4"), ("n", "i4")]), "dtype"), (np.array(3.0), "0-D"),
        (np.array([["2020-01-01"]], dtype="M8[D]"), "dtype"), (np.array([[b"a"]]), "dtype"),
        (np.ones((4, 2), dtype="c8"), "dtype complex64"),
    ],
)  # fmt: skip
def test_what_is_no_matrix_of_numbers_is_refused(tmp_path: Path, content: Any, words: str) -> None:
    np.save(tmp_path / "a.npy", content, allow_pickle=True)
    with pytest.raises(ValueError, match=rf"a\.npy: .*{words}"):
        len(NpyRows(str(tmp_path / "a.npy")))
    with pytest.raises(ValueError, match=rf"a\.npy: .*{words}"):
        len(ObjectStoreRows(str(tmp_path / "a.npy"), cache_dir=str(tmp_path / "cache")))


@pytest.mark.parametrize("name", ["a.npz", "renamed.npy"])
def test_an_archive_is_refused_by_name(tmp_path: Path, name: str) -> None:
    stream = io.BytesIO()
    np.savez(stream, a=np.ones((3, 2)))
    (tmp_path / name).write_bytes(stream.getvalue())
    with pytest.raises(ValueError, match=rf"{name}: a zip archive.*numpy\.save"):
        len(NpyRows(str(tmp_path / name)))
