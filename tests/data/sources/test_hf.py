"""Hugging Face data sets as rows: bad columns and vectors are named, numbers are not copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seminmf_lightning.data import ActivationDataModule
from seminmf_lightning.data.sources.hf import HuggingFaceRows

datasets = pytest.importorskip("datasets")


def saved(folder: Path, **columns: Any) -> str:
    datasets.Dataset.from_dict(columns).save_to_disk(folder)
    return str(folder)


ROWS = np.arange(24, dtype=np.float32).reshape(6, 4)


def test_a_shard_is_a_view_of_the_file(tmp_path: Path) -> None:
    source = HuggingFaceRows(saved(tmp_path, activations=ROWS))
    assert torch.equal(source.read_range(0, 6), torch.from_numpy(ROWS))
    first, again = (source.shards[0].rows.data_ptr() for _ in range(2))
    assert first == again and source.shards[0].opened is not None
    assert source.where(3) == f"{source.shards[0].name}, row 3"
    assert source.shards[0].name.endswith("data-00000-of-00001.arrow, batch 0")


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int32])
def test_numbers_of_other_types(kind: type, tmp_path: Path) -> None:
    source = HuggingFaceRows(saved(tmp_path, x=ROWS.astype(kind)))
    assert torch.equal(source.read_range(0, 6).float(), torch.from_numpy(ROWS))


def test_a_column_of_groups(tmp_path: Path) -> None:
    path = saved(tmp_path, x=ROWS, name=["a", "a", "b", "b", "c", "c"])
    data = ActivationDataModule(HuggingFaceRows(path, group="name"), val_split="group", val_fraction=0.3)
    data.setup()
    assert data.val_rows is not None and data.train_rows is not None
    held_out = data.val_rows.rows(np.arange(len(data.val_rows)))
    assert len(held_out) == 2 and held_out[0] // 2 == held_out[1] // 2
    with pytest.raises(ValueError, match=r"no column 'nmae'; it has x, name"):
        HuggingFaceRows(path, group="nmae").open_groups()


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"x": ROWS}, {"column": "y"}, r"no column 'y'; it has x \(list<.*float>\)"),
        ({"x": ROWS, "t": range(6)}, {"column": "t"}, r"'t' is no column of vectors; it has x"),
        ({"x": ROWS, "y": ROWS}, {}, r"which column holds the vectors\? Set data\.column; it has x .*, y "),
        ({"t": range(6)}, {}, r"which column holds the vectors\?"),
        ({"x": [[1.0, 2.0], [1.0]]}, {}, r"batch 0, row 1: 1 numbers, but row 0 has 2; all vectors must be"),
        ({"x": [[1.0], None]}, {}, r"batch 0, row 1: no vector \(1 such rows"),
        ({"x": [[1.0, 2.0], [1.0, None]]}, {}, r"batch 0, row 1: a missing number \(1 in this batch"),
        ({"x": [["a"], ["b"]]}, {}, r"expected vectors of float or integer numbers"),
        ({"x": [[[1.0]], [[2.0]]]}, {}, r"a column of list<.*list<.*; expected vectors"),
        ({"x": [[], []]}, {}, r"a column of list<item: null>; expected vectors"),
    ],
)
def test_what_is_no_matrix_is_refused(
    columns: dict[str, Any], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, **columns)
    with pytest.raises(ValueError, match=message):
        _ = HuggingFaceRows(path, **settings).shards


def test_files_of_other_widths_and_folders_without_a_data_set(tmp_path: Path) -> None:
    for width in (4, 5):
        datasets.Dataset.from_dict({"x": np.ones((3, width), np.float32)}).to_parquet(
            tmp_path / f"{width}.parquet"
        )
    files = [str(tmp_path / "4.parquet"), str(tmp_path / "5.parquet")]
    with pytest.raises(ValueError, match=r"5 numbers, but row 0 has 4|rows of 5 features, but .* has 4"):
        _ = HuggingFaceRows(files, cache_dir=str(tmp_path / "cache")).shards
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("a")
    with pytest.raises(FileNotFoundError, match=r"no data set here, found a\.txt; a folder of save_to_disk"):
        _ = HuggingFaceRows(str(tmp_path / "other")).shards
    (tmp_path / "bad.arrow").write_bytes(b"no arrow")
    with pytest.raises(ValueError, match=r"bad\.arrow: not an Arrow file"):
        _ = HuggingFaceRows(str(tmp_path / "bad.arrow")).shards
    datasets.DatasetDict({"test": datasets.Dataset.from_dict({"x": ROWS})}).save_to_disk(tmp_path / "splits")
    with pytest.raises(ValueError, match=r"no split 'train'; data\.split is one of test"):
        _ = HuggingFaceRows(str(tmp_path / "splits")).shards


def test_nan_is_named_by_the_general_check_and_a_changed_file_too(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[4, 1] = np.nan
    source = HuggingFaceRows(saved(tmp_path, activations=rows))
    data = ActivationDataModule(source, val_fraction=0)
    data.setup()
    with pytest.raises(ValueError, match=r"arrow, batch 0, row 4: .*every number must be finite"):
        data.sample()
    with open(tmp_path / "data-00000-of-00001.arrow", "ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match=r"arrow: was changed while it was being read"):
        source.read_range(0, 2)


def test_splits_are_never_mixed_or_ignored(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"x": ROWS})
    for name in ("train-00000", "test-00000"):
        rows.to_parquet(tmp_path / "files" / f"{name}.parquet")
    with pytest.raises(
        ValueError, match=r"several splits, such as test-0.*, train-0.*give data\.path=.*/test\*"
    ):
        _ = HuggingFaceRows(str(tmp_path / "files")).shards
    one = HuggingFaceRows(str(tmp_path / "files" / "test*.parquet"), cache_dir=str(tmp_path / "cache"))
    assert len(one) == 6
    for path in (str(tmp_path / "files"), saved(tmp_path / "whole", x=ROWS)):
        with pytest.raises(ValueError, match=r"has no splits, found data\.split='test'"):
            _ = HuggingFaceRows(path, split="test").shards
    (tmp_path / "files" / "a.arrow").write_bytes(b"")
    with pytest.raises(ValueError, match=r"both \.arrow and \.parquet files; give data\.path="):
        _ = HuggingFaceRows(str(tmp_path / "files")).shards


@pytest.mark.parametrize("groups", [[0.5] * 6, ROWS, [True] * 6])
def test_groups_are_whole_numbers_or_texts(groups: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"column 'g' is .*; expected whole numbers or texts"):
        HuggingFaceRows(saved(tmp_path, x=ROWS, g=groups), column="x", group="g").open_groups()
