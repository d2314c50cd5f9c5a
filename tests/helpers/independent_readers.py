"""Read files without the package or its libraries, to compare what the package reads."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import torch

NUMPY_TYPES = {
    "F32": "<f4",
    "F64": "<f8",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
    "BOOL": "?",
}


def plain_safetensors(content: bytes) -> tuple[dict[str, tuple[list[int], str, bytes]], dict[str, str]]:
    """Shape, type and bytes of each tensor, and the metadata, by ``struct`` and ``json`` alone; of equal keys
    the last."""
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    metadata = header.pop("__metadata__", None) or {}
    tensors = {}
    for name, found in header.items():
        start, stop = found["data_offsets"]
        tensors[name] = (found["shape"], found["dtype"], content[8 + size :][start:stop])
    assert sum(len(data) for *_, data in tensors.values()) == len(content) - 8 - size, (
        "bytes of the file were dropped"
    )
    return tensors, metadata


def same_tensor(found: torch.Tensor, plain: tuple[list[int], str, bytes]) -> None:
    shape, kind, data = plain
    assert list(found.shape) == shape
    assert found.contiguous().flatten().view(torch.uint8).numpy().tobytes() == data
    if kind in NUMPY_TYPES:
        assert found.numpy().dtype == np.dtype(NUMPY_TYPES[kind])


def same(found: Any, plain: Any) -> bool:
    """Equal, NaN included."""
    if isinstance(found, torch.Tensor):
        return (
            isinstance(plain, torch.Tensor)
            and found.dtype == plain.dtype
            and torch.equal(found.nan_to_num(), plain.nan_to_num())
        )
    if isinstance(found, dict):
        return (
            isinstance(plain, dict)
            and found.keys() == plain.keys()
            and all(same(found[key], plain[key]) for key in found)
        )
    if isinstance(found, list | tuple):
        return len(found) == len(plain) and all(map(same, found, plain))
    return found == plain or (found != found and plain != plain)
