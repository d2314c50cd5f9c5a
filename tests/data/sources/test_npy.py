"""Every type of number is read; bad files are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from seminmf_lightning.data import NpyRows


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int16", "uint8", "uint16", "int64", ">f4"]
)
def test_number_types(tmp_path: Path, dtype: str) -> None:
    array = np.arange(20).reshape(5, 4).astype(dtype)
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
