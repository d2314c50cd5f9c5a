"""Rows in a column of vectors of a Hugging Face data set, memory-mapped.

Arrow stores the numbers of a column of equally long lists one after the other, in record batches: each batch
is a shard, a view of the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seminmf_lightning.data.paths import Paths, find_files
from seminmf_lightning.data.shard import Shard, array_shard, file_state
from seminmf_lightning.data.sources.base import Source
from seminmf_lightning.io.untrusted import Refused, refusing

FILES = {".arrow": "arrow", ".parquet": "parquet"}
"""Files that are read without a folder of ``save_to_disk``, and how ``datasets`` calls their format."""
SPLIT = re.compile(r"(?:^|[-_.])(train|test|validation|valid|dev)(?=[-_.])")
"""Names of splits in names of files."""


@dataclass
class HuggingFaceRows(Source):
    """A data set that ``save_to_disk`` wrote, or ``.parquet`` or ``.arrow`` files.

    Parquet is compressed: ``datasets`` writes it once as Arrow, to its own cache.
    """

    path: Paths
    """A folder, a file, a glob, or a list of them."""
    column: str | None = None
    """Column of vectors; None: ``activations``, or the only one."""
    split: str = "train"
    """Split of a folder that has several."""
    group: str | None = None
    """Column with the image or document of each row: whole numbers or texts."""
    cache_dir: str | None = None
    """Folder for Parquet that is written as Arrow; None: that of ``datasets``."""

    def prepare(self) -> None:
        self._files()

    def open(self) -> list[Shard]:
        shards = []
        for file in self._files():
            state = file_state(file)
            column = _table(file)
            for number, batch in enumerate(column.column(self._column(file, column.schema)).chunks):
                if len(batch):
                    name = f"{file}, batch {number}"
                    shards.append(array_shard(name, _vectors(name, batch), state)._replace(file=str(file)))
        if not shards:
            raise Refused(f"{self.path}: the data set holds no row")
        return shards

    def open_groups(self) -> np.ndarray | None:
        return None if self.group is None else np.concatenate(list(self._groups(self.group)))

    def _groups(self, column: str) -> Iterator[np.ndarray]:
        import pyarrow as pa

        texts = pa.types.is_string, pa.types.is_large_string
        for file in self._files():
            table = _table(file)
            if column not in table.column_names:
                raise Refused(f"{file}: no column {column!r}; it has {', '.join(table.column_names)}")
            groups = table.column(column)
            if not any(test(groups.type) for test in (pa.types.is_integer, *texts)):
                raise Refused(f"{file}: column {column!r} is {groups.type}; expected whole numbers or texts")
            if groups.null_count:
                raise Refused(f"{file}: {groups.null_count:,} rows have no value in column {column!r}")
            array = groups.to_numpy()
            yield array.astype(str) if array.dtype.kind == "O" else array

    def _files(self) -> list[Path]:
        """Return the Arrow files, in the order of their rows."""
        datasets = _library()
        folder = Path(os.path.expanduser(self.path)) if isinstance(self.path, str | os.PathLike) else None
        if folder and (folder / "dataset_dict.json").is_file():
            with refusing(folder, "a folder of save_to_disk"):
                splits = datasets.load_from_disk(folder)
            if self.split not in splits:
                raise Refused(f"{folder}: no split {self.split!r}; data.split is one of {', '.join(splits)}")
            rows = splits[self.split]
        elif folder and (folder / "dataset_info.json").is_file():
            with refusing(folder, "a folder of save_to_disk"):
                rows = datasets.load_from_disk(folder)
            self._refuse_splits(folder, [])
        else:
            suffix = self._suffix()
            files = find_files(self.path, suffix)
            self._refuse_splits(folder, files)
            if suffix == ".arrow":
                return files
            with refusing(self.path, f"files of {FILES[suffix]}"):
                rows = datasets.load_dataset(
                    FILES[suffix], data_files=[str(file.absolute()) for file in files], split="train",
                    cache_dir=self.cache_dir,
                )  # fmt: skip
        return [Path(one["filename"]) for one in rows.cache_files]

    def _refuse_splits(self, folder: Path | None, files: list[Path]) -> None:
        """Raise Refused for a split that cannot be chosen, and for files that are named after several."""
        if self.split != "train":
            raise Refused(
                f"{self.path}: has no splits, found data.split={self.split!r}; give its files alone"
            )
        named = {found[1]: file.name for file in files if (found := SPLIT.search(file.name))}
        if folder and folder.is_dir() and len(named) > 1:
            listed, one = ", ".join(sorted(named.values())), min(named)
            raise Refused(
                f"{folder}: files of several splits, such as {listed}; give data.path={folder}/{one}*"
            )

    def _suffix(self) -> str:
        """Return the suffix of the files: that of the first path, or of what a folder holds."""
        first = self.path if isinstance(self.path, str | os.PathLike) else next(iter(self.path), "")
        path = Path(os.path.expanduser(first))
        names = os.listdir(path) if path.is_dir() else [path.name]
        suffixes = {Path(name).suffix for name in names} & set(FILES)
        if len(suffixes) > 1:
            raise Refused(
                f"{path}: both .arrow and .parquet files; give data.path={path}/*.parquet, or *.arrow"
            )
        if path.is_dir() and not suffixes:
            found = ", ".join(sorted(names)[:8]) or "nothing"
            raise FileNotFoundError(
                f"data.path={os.fspath(first)!r}: no data set here, found {found}; a folder of save_to_disk "
                "holds dataset_info.json, others .parquet or .arrow files"
            )
        return min(suffixes, default=".parquet")

    def _column(self, file: Path, schema: Any) -> str:
        """Return the name of the column of vectors."""
        import pyarrow as pa

        lists = pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list
        vectors = [field.name for field in schema if any(test(field.type) for test in lists)]
        listed = ", ".join(f"{field.name} ({field.type})" for field in schema)
        if self.column is not None and self.column not in schema.names:
            raise Refused(f"{file}: no column {self.column!r}; it has {listed}")
        if self.column is not None and self.column not in vectors:
            raise Refused(f"{file}: column {self.column!r} is no column of vectors; it has {listed}")
        name = self.column or ("activations" if "activations" in vectors else None)
        if name is None and len(vectors) != 1:
            raise Refused(f"{file}: which column holds the vectors? Set data.column; it has {listed}")
        return name or vectors[0]


def _library() -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("data=hf needs: pip install 'seminmf-lightning[datasets]'") from error
    return datasets


def _table(file: Path) -> Any:
    """Memory-map an Arrow file, of the kind that ``datasets`` writes or that of other tools."""
    import pyarrow as pa

    with refusing(file, "an Arrow file; it may be truncated, or of another format"):
        source = pa.memory_map(str(file))
        try:
            return pa.ipc.open_stream(source).read_all()
        except pa.ArrowInvalid:
            return pa.ipc.open_file(source).read_all()


def _vectors(name: str, batch: Any) -> np.ndarray:
    """Return the vectors (n, d) of a record batch, over its memory.

    Raises:
        Refused: a row without a vector, a vector of another length, or what is missing or no number.
    """
    import pyarrow as pa

    if batch.null_count:
        row = batch.is_null().to_pylist().index(True)
        raise Refused(f"{name}, row {row}: no vector ({batch.null_count:,} such rows in this batch)")
    values, n = batch.flatten(), len(batch)
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise Refused(f"{name}: a column of {batch.type}; expected vectors of float or integer numbers")
    lengths = (
        np.full(n, batch.type.list_size)
        if pa.types.is_fixed_size_list(batch.type)
        else np.diff(batch.offsets.to_numpy())
    )
    if (other := np.flatnonzero(lengths != lengths[0])).size:
        raise Refused(
            f"{name}, row {other[0]}: {lengths[other[0]]} numbers, but row 0 has {lengths[0]}; all vectors "
            "must be of one length"
        )
    if values.null_count:
        row = values.is_null().to_pylist().index(True) // int(lengths[0])
        raise Refused(f"{name}, row {row}: a missing number ({values.null_count:,} in this batch)")
    vectors: np.ndarray = values.to_numpy(zero_copy_only=True).reshape(n, int(lengths[0]))
    return vectors
