"""Read binary tasks, texts with labels: CSV files, a Hugging Face data set, the package sae-probes."""

from __future__ import annotations

import csv
import io
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE, INSTALL = "sae-probes", "pip install 'seminmf-lightning[probes]' (sae-probes itself with --no-deps)"
MASTER = "sae_probes/data/probing_datasets_MASTER.csv.zst"
LONGEST_CELL = 2**27
"""Characters of one text in a CSV file; Python's own limit is 2**17."""


@dataclass(frozen=True)
class Task:
    """Texts and their labels (n,), bool."""

    name: str
    texts: list[str]
    labels: np.ndarray
    classes: tuple[str, str]
    """What the labels False and True are called."""
    repeated: int = 0
    """Rows left out because their text came before."""


def read_tasks(
    source: str | None, *, text: str, label: str, count: int | None, rows: int | None, folds: int, seed: int
) -> list[Task]:
    """Return the tasks of ``source``, ``count`` of them at random, each with at most ``rows`` texts.

    ``source`` is a folder with one CSV file per task, a CSV file, the folder of a Hugging Face data set (one
    task), or ``sae-probes``, the 113 binary tasks inside that package (None: these), which is not imported.
    A choice of rows keeps the shares of the classes.

    Raises:
        FileNotFoundError, ModuleNotFoundError, ValueError: the message names the file and the row.
    """
    makers = dict(_sources(source or PACKAGE, text, label))
    if count is not None and count > len(makers):
        raise ValueError(f"count={count}, but tasks={source or PACKAGE} holds {len(makers)} tasks")
    names = sorted(makers)
    if count is not None:
        names = sorted(np.random.default_rng(seed).choice(names, count, replace=False).tolist())
    return [_reduced(make_task(name, makers[name]), rows, folds, seed) for name in names]


class Table:
    """Rows of one task, read when iterated: pairs of text and label, with the place of each for messages."""

    def __init__(self, file: object, text: str, label: str) -> None:
        self.file, self.columns = file, (text, label)

    def pairs(self) -> Iterator[tuple[int, Any, Any]]:
        """Yield the line or row number, the text and the label."""
        raise NotImplementedError

    def _check(self, found: Sequence[str]) -> None:
        if missing := [column for column in self.columns if column not in found]:
            raise ValueError(
                f"{self.file}: no column {missing[0]!r}; it has {', '.join(map(str, found))}: set "
                "suite.probes.text and suite.probes.label"
            )


class CsvTable(Table):
    def pairs(self) -> Iterator[tuple[int, Any, Any]]:
        csv.field_size_limit(LONGEST_CELL)
        with self._open() as stream:
            reader = csv.DictReader(stream)
            try:
                self._check(reader.fieldnames or [])
                for row in reader:
                    if None in row:
                        raise ValueError(
                            f"{self.file}, line {reader.line_num}: more cells than columns, so that texts "
                            "and labels do not match; put texts with commas in quotes"
                        )
                    yield reader.line_num, row[self.columns[0]], row[self.columns[1]]
            except (csv.Error, UnicodeError) as error:
                raise ValueError(f"{self.file}: not a CSV file in utf-8 ({error})") from error

    def _open(self) -> Any:
        if not str(self.file).endswith(".zst"):
            return open(str(self.file), encoding="utf-8-sig", newline="")
        try:
            import zstandard
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"{self.file} needs zstandard: {INSTALL}") from error
        with open(str(self.file), "rb") as packed:
            content = zstandard.ZstdDecompressor().stream_reader(packed).read()
        return io.StringIO(content.decode("utf-8-sig"), newline="")


class DatasetTable(Table):
    def pairs(self) -> Iterator[tuple[int, Any, Any]]:
        try:
            import datasets
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{self.file} needs: pip install 'seminmf-lightning[datasets]'"
            ) from error
        loaded = datasets.load_from_disk(str(self.file))
        row = 0
        for split in loaded.values() if isinstance(loaded, dict) else [loaded]:  # the suite splits by itself
            self._check(split.column_names)
            for text, label in zip(*(split[column] for column in self.columns), strict=True):
                yield row, text, label
                row += 1


def _sources(source: str, text: str, label: str) -> Iterator[tuple[str, Table]]:
    if source == PACKAGE:
        yield from _of_package()
        return
    path = Path(source).expanduser()
    if any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json")):
        yield path.name, DatasetTable(path, text, label)
    elif path.is_dir():
        files = sorted(path.glob("*.csv"))
        if not files:
            raise FileNotFoundError(f"tasks={source}: no .csv file and no data set of save_to_disk in it")
        yield from ((file.stem, CsvTable(file, text, label)) for file in files)
    elif path.is_file():
        yield path.stem, CsvTable(path, text, label)
    else:
        raise FileNotFoundError(
            f"tasks={source}: no such file or folder; accepted: a folder of CSV files, a CSV file, a data "
            f"set of save_to_disk, or {PACKAGE}"
        )


def _of_package() -> Iterator[tuple[str, Table]]:
    """Yield the tables of the package; nothing of it is imported, which would need its dependencies."""
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError as error:
        raise ModuleNotFoundError(
            f"tasks={PACKAGE}: the package is not installed: {INSTALL}; or give suite.probes.tasks=FOLDER"
        ) from error
    master = Path(str(package.locate_file(MASTER)))
    for _, name, kind in CsvTable(master, "Dataset save name", "Data type").pairs():
        if kind == "Binary Classification":
            yield Path(name).stem, CsvTable(master.parent / f"{name}.zst", "prompt", "target")


def make_task(name: str, table: Table) -> Task:
    """Return the task of a table, each text once.

    Raises:
        ValueError: a row without a text or a label, or not two classes.
    """
    texts: dict[str, str] = {}
    n_rows = 0
    for row, text, label in table.pairs():
        if not isinstance(text, str) or label is None or not str(label).strip():
            lacking = "label" if isinstance(text, str) else "text"
            raise ValueError(
                f"{table.file}, row {row}: no {lacking}; every text needs one label, and every label a text"
            )
        texts.setdefault(text, str(label).strip())
        n_rows += 1
    counted = Counter(texts.values())
    classes = sorted(counted)
    if len(classes) != 2:
        shown = ", ".join(f"{one!r} ({counted[one]} rows)" for one in classes[:6]) or "no rows"
        raise ValueError(
            f"{table.file}: found {len(classes)} classes, {shown}; a task has two: write one file per class, "
            "with that class against the others"
        )
    labels = np.array([label == classes[1] for label in texts.values()])
    return Task(name, list(texts), labels, (classes[0], classes[1]), n_rows - len(texts))


def _reduced(task: Task, rows: int | None, folds: int, seed: int) -> Task:
    """Return at most ``rows`` texts, drawn from each class by its share."""
    kept: Iterable[int] = range(len(task.texts))
    if rows is not None and rows < len(task.texts):
        generator = np.random.default_rng([seed, zlib.crc32(task.name.encode())])
        parts = []
        for label in (False, True):
            of_class = np.flatnonzero(task.labels == label)
            size = max(1, round(rows * len(of_class) / len(task.texts)))
            parts.append(generator.permutation(of_class)[:size])
        kept = np.sort(np.concatenate(parts)).tolist()
    task = replace(task, texts=[task.texts[row] for row in kept], labels=task.labels[list(kept)])
    fewest = min(int(task.labels.sum()), int((~task.labels).sum()))
    if fewest < max(folds, 4):
        name = task.classes[int(task.labels.sum() == fewest)]
        raise ValueError(
            f"task {task.name}: {fewest} examples of class {name!r}, fewer than the {max(folds, 4)} that "
            f"folds={folds} need{'' if rows is None else f' (rows_per_task={rows})'}"
        )
    return task
