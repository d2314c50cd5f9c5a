"""Tasks from CSV files, data sets and the package sae-probes, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seminmf_lightning.suites.probing import tasks


def read(source: Path | str, **options: Any) -> list[tasks.Task]:
    settings: dict[str, Any] = {"text": "text", "label": "label", "count": None, "rows": None}
    return tasks.read_tasks(str(source), **settings | {"folds": 2, "seed": 0} | options)


def write(file: Path, rows: int = 20, head: str = "text,label", labels: str = "ab") -> Path:
    lines = [f'"text, number {row}",{labels[row % len(labels)]}' for row in range(rows)]
    file.write_text("\n".join([head, *lines]) + "\n")
    return file


def test_a_folder_has_one_task_per_file(tmp_path: Path) -> None:
    write(tmp_path / "one.csv")
    write(tmp_path / "two.csv", 40, "t,l")
    (first,) = read(tmp_path / "one.csv")
    assert first.name == "one" and first.classes == ("a", "b")
    assert first.texts[:2] == ["text, number 0", "text, number 1"]
    assert first.labels.tolist() == [False, True] * 10
    with pytest.raises(ValueError, match=r"two\.csv: no column 'text'; it has t, l: set suite\.probes\.text"):
        read(tmp_path)
    (second,) = read(tmp_path / "two.csv", text="t", label="l")
    assert len(second.texts) == 40


def test_choices_are_random_stratified_and_repeatable(tmp_path: Path) -> None:
    for number in range(6):
        write(tmp_path / f"{number}.csv", 90, labels="aab")
    found = read(tmp_path, count=3, rows=30)
    assert len(found) == 3
    for task in found:
        assert len(task.texts) == 30 and task.labels.sum() == 10
    again = read(tmp_path, count=3, rows=30)
    assert [task.texts for task in again] == [task.texts for task in found]
    others = [read(tmp_path, count=3, rows=30, seed=seed) for seed in range(1, 5)]
    assert any([task.name for task in other] != [task.name for task in found] for other in others)
    (alone,) = read(tmp_path / f"{found[0].name}.csv", rows=30)
    assert alone.texts == found[0].texts  # whatever other tasks there are


def test_a_repeated_text_counts_once(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv")
    file.write_text(file.read_text() + '"text, number 3",b\n')
    (task,) = read(file)
    assert len(task.texts) == 20 and task.repeated == 1


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "one class": (lambda file: write(file, labels="a"), r"a\.csv: found 1 classes, 'a' \(20 rows\)"),
    "three classes": (lambda file: write(file, labels="abc"), r"found 3 classes.*one file per class"),
    "no rows": (lambda file: write(file, 0), r"a\.csv: found 0 classes, no rows"),
    "few": (lambda file: write(file, 5), r"task a: 2 examples of class 'b', fewer than the 4 that folds=2"),
    "no label": (lambda file: file.write_text("text,label\nx,a\ny\n"), r"a\.csv, row 3: no label"),
    "empty label": (lambda file: file.write_text("text,label\nx,a\ny,\n"), r"a\.csv, row 3: no label"),
    "a comma": (lambda file: file.write_text("text,label\nx,y,a\n"), r"line 2: more cells than columns"),
    "not text": (lambda file: file.write_bytes(b"text,label\n\xff\xfe,a\n"), r"not a CSV file in utf-8"),
    "no column": (lambda file: write(file, head="a,b"), r"no column 'text'; it has a, b"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_named(kind: str, tmp_path: Path) -> None:
    make, message = BAD[kind]
    make(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_a_missing_source_and_too_many_tasks(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"nowhere: no such file or folder; accepted: a folder of CSV"
    ):
        read("nowhere")
    with pytest.raises(FileNotFoundError, match=r"no \.csv file"):
        read(tmp_path)
    write(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"count=2, but tasks=.* holds 1 tasks"):
        read(tmp_path, count=2)
    with pytest.raises(ValueError, match=r"fewer than the 4 .*\(rows_per_task=6\)"):
        read(tmp_path, rows=6)


def test_a_data_set_on_disk_is_one_task(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"text": [f"text {number}" for number in range(12)], "label": [0, 1] * 6}
    split = datasets.Dataset.from_dict(rows)
    split.save_to_disk(str(tmp_path / "single"))
    datasets.DatasetDict(train=split.select(range(8)), test=split.select(range(8, 12))).save_to_disk(
        str(tmp_path / "splits")
    )
    for name in ("single", "splits"):
        (task,) = read(tmp_path / name)
        assert task.name == name and task.texts == rows["text"] and task.classes == ("0", "1")
    with pytest.raises(ValueError, match=r"no column 'topic'; it has text, label"):
        read(tmp_path / "single", label="topic")


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(tasks, "distribution", absent)
    with pytest.raises(ModuleNotFoundError, match=r"sae-probes: .*pip install 'seminmf-lightning\[probes\]'"):
        read(tasks.PACKAGE)


def test_the_package_holds_113_binary_tasks_and_is_not_imported() -> None:
    pytest.importorskip("zstandard")
    if find_spec("sae_probes") is None:
        pytest.skip("pip install --no-deps sae-probes")
    assert len(dict(tasks._of_package())) == 113
    chosen = read(tasks.PACKAGE, count=4, rows=50)
    for task in chosen:
        assert 48 <= len(task.texts) <= 52 and 20 <= task.labels.sum() <= 30
        assert all(isinstance(text, str) and text for text in task.texts)
    assert np.unique([task.name for task in chosen]).size == 4
    assert "sae_probes" not in sys.modules
