"""Arrays of any layout give their rows and are not written to; hidden entries are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seminmf_lightning.data import ActivationDataModule, TensorRows

A = np.arange(24, dtype=np.float32).reshape(6, 4)


def record_field() -> np.ndarray:
    records = np.zeros(6, dtype=[("tag", "i1"), ("x", "f4", (4,))])
    records["x"] = A
    return records["x"]


@pytest.mark.parametrize(
    "rows",
    [
        A[::-1][::-1], A[::-1], A[:, ::-1], np.asfortranarray(A), A.astype(">f4"), A.astype(">i2"),
        A[::-1].astype(">f8"), A[::2], A.astype("g"), record_field(), np.broadcast_to(A[:1], (6, 4)),
        np.asmatrix(A), np.ma.masked_array(A), A.astype(np.uint16), A > 3,
        torch.from_numpy(A).T.contiguous().T, torch.from_numpy(A).requires_grad_(),
        torch.from_numpy(A).bfloat16(),
    ],
    ids=lambda rows: f"{type(rows).__name__} {rows.dtype}",
)  # fmt: skip
def test_rows_of_any_layout(rows: Any) -> None:
    source = TensorRows(rows)
    expected = (
        rows.detach() if isinstance(rows, torch.Tensor) else torch.from_numpy(np.array(rows, dtype="f4"))
    )
    chosen = np.array([2, 0, 1, 2])
    assert torch.equal(source.read(chosen).float(), expected[chosen].float())
    assert torch.equal(source.read_range(1, 3).float(), expected[1:3].float())
    assert ActivationDataModule(rows).features == 4


def test_a_read_only_map_is_not_copied(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    np.save(tmp_path / "a.npy", A)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    (shard,) = TensorRows(mapped).shards
    assert shard.rows.data_ptr() == mapped.ctypes.data
    assert not recwarn.list


@pytest.mark.parametrize("data", [lambda x: TensorRows(x).shards, lambda x: ActivationDataModule(x).features])
def test_hidden_entries_are_refused(data: Any) -> None:
    hidden = np.ma.masked_array(A, A % 5 == 2)
    with pytest.raises(ValueError, match=r"row 0 has masked entries \(5 such rows\).*activations\.filled"):
        data(hidden)
    assert data(hidden.filled(0)) and data(hidden[~hidden.mask.any(axis=1)].data)


def test_other_containers_are_refused() -> None:
    for rows, words in (
        (torch.from_numpy(A).to_sparse(), "sparse_coo"), (A.astype(object), "object"), (A * 1j, "complex"),
        (torch.ones(3, 2) * 1j, "complex"), (A[0], "1-D"), (A[:0], "empty"), (A[None], "3-D"),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=words):
            len(TensorRows(rows))
    with pytest.raises(TypeError, match="must be a tensor or an ndarray, got list"):
        len(TensorRows([[1.0]]))  # type: ignore[arg-type]
