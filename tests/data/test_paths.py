"""A file that is missing from a numbered set is named; other numbers in names mean nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seminmf_lightning.data import ActivationDataModule, NpyRows, ObjectStoreRows, SafetensorsRows
from seminmf_lightning.data.paths import find_files, refuse_missing


def names(folder: Path, *present: str) -> list[str]:
    for name in present:
        np.save(folder / name, np.ones((2, 3)))
    return [file.name for file in find_files(str(folder), ".npy")]


@pytest.mark.parametrize(
    ("present", "missing"),
    [
        (("part-00000-of-00003.npy", "part-00002-of-00003.npy"), "part-00001-of-00003.npy"),
        (("part-00001-of-00003.npy", "part-00003-of-00003.npy"), "part-00002-of-00003.npy"),
        (("part-00000-of-00003.npy", "part-00001-of-00003.npy"), "part-00002-of-00003.npy"),
        (("m-1-of-2.npy",), "m-0-of-2.npy"), (("m-0-of-2.npy",), "m-1-of-2.npy"),
        (("0.npy", "1.npy", "3.npy"), "/2.npy"), (("1.npy", "2.npy", "4.npy", "5.npy"), "/3.npy"),
        (("acts_0007.npy", "acts_0008.npy", "acts_0010.npy"), "acts_0009.npy"),
        (("8.a.npy", "9.a.npy", "0.a.npy", "2.a.npy", "3.a.npy", "4.a.npy", "5.a.npy", "6.a.npy"), "1.a.npy"),
    ],
)  # fmt: skip
def test_a_missing_file_is_named(tmp_path: Path, present: tuple[str, ...], missing: str) -> None:
    with pytest.raises(ValueError, match="missing from a numbered set") as error:
        names(tmp_path, *present)
    assert missing in str(error.value)
    with pytest.raises(ValueError, match="missing from a numbered set"):
        len(ObjectStoreRows(f"{tmp_path}/*.npy", cache_dir=str(tmp_path / "cache")))
    listed = [str(tmp_path / name) for name in present]
    assert len(NpyRows(listed)) == len(ObjectStoreRows(listed)) == 2 * len(present)


@pytest.mark.parametrize(
    "present",
    [
        ("part-00000-of-00002.npy", "part-00001-of-00002.npy"), ("part-1-of-2.npy", "part-2-of-2.npy"),
        ("layer4.npy", "layer8.npy", "layer12.npy"), ("2019.npy", "2021.npy", "2022.npy"), ("5.npy",),
        ("a.npy", "b.npy"), ("step-0001000.npy", "step-0002000.npy"), ("9-items.npy", "x.npy"),
        ("0.npy", "1.npy", "2.npy"), ("1.npy", "2.npy"), ("a0b.npy", "a0c.npy", "a2d.npy"),
    ],
)  # fmt: skip
def test_other_numbers_are_no_set(tmp_path: Path, present: tuple[str, ...]) -> None:
    assert names(tmp_path, *present) == sorted(present)


def test_a_chosen_part_of_a_set_is_read(tmp_path: Path) -> None:
    names(tmp_path, *(f"{index}.npy" for index in range(6)))
    assert len(find_files(str(tmp_path / "[0135].npy"), ".npy")) == 4
    assert len(find_files(str(tmp_path / "3.npy"), ".npy")) == 1


def test_many_missing_files_take_no_time() -> None:
    with pytest.raises(ValueError, match=r"a1-of-999999999999\.npy, a2"):
        refuse_missing(["a0-of-999999999999.npy"], lambda name: False)


def test_suffixes_in_upper_case_are_found(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    (tmp_path / "x.npy").rename(tmp_path / "A.NPY")
    save_file({"x": np.ones((4, 3))}, tmp_path / "B.SafeTensors")
    assert len(NpyRows(str(tmp_path))) == len(NpyRows(str(tmp_path / "A.NPY"))) == 2
    assert len(SafetensorsRows(str(tmp_path))) == 4
    cache = str(tmp_path / "cache")
    assert len(ObjectStoreRows(str(tmp_path / "A.NPY"), cache_dir=cache)) == 2
    assert len(ObjectStoreRows(str(tmp_path / "B.SafeTensors"), cache_dir=cache)) == 4
    assert len(ActivationDataModule(str(tmp_path / "B.SafeTensors")).source) == 4


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no \*\.npy file"):
        find_files(str(tmp_path), ".npy")
    with pytest.raises(FileNotFoundError, match="matches no file"):
        find_files(str(tmp_path / "*.npy"), ".npy")
    with pytest.raises(FileNotFoundError, match="empty list"):
        find_files([], ".npy")
    with pytest.raises(TypeError, match=r"data\.path must be"):
        find_files([3], ".npy")  # type: ignore[list-item]
