"""Rows in a data set of ``save_to_disk``, in one with splits, in Parquet and in Arrow's own format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from seminmf_lightning.data.sources.hf import HuggingFaceRows


def examples(folder: Path, rows: torch.Tensor) -> Iterator[HuggingFaceRows]:
    datasets = pytest.importorskip("datasets")
    import pyarrow as pa

    features = datasets.Features(
        {"activations": datasets.List(datasets.Value("float32")), "text": datasets.Value("int64")}
    )
    table = {"activations": rows.numpy(), "text": [number // 7 for number in range(len(rows))]}
    data = datasets.Dataset.from_dict(table, features=features)
    data.save_to_disk(folder / "saved", num_shards=3)
    yield HuggingFaceRows(str(folder / "saved"), group="text")
    datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(folder / "splits")
    yield HuggingFaceRows(str(folder / "splits"), "activations")
    (folder / "files").mkdir()
    for index in range(2):
        data.shard(2, index, contiguous=True).to_parquet(folder / "files" / f"{index}.parquet")
    yield HuggingFaceRows(str(folder / "files"), cache_dir=str(folder / "cache"))
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(rows.numpy().ravel()), rows.shape[1])
    with (
        pa.OSFile(str(folder / "fixed.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, pa.schema([("x", fixed.type)])) as writer,
    ):
        for start in range(0, len(rows), 170):
            writer.write_batch(pa.record_batch([fixed[start : start + 170]], names=["x"]))
    yield HuggingFaceRows(str(folder / "fixed.arrow"))
