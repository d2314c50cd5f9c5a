"""Find the matrices in a remote file from its first bytes, without reading the rows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from seminmf_lightning.io.untrusted import Refused, npy_header, refusing

FIRST_BYTES = 2**16  # per request; holds all of a usual header
LONGEST_HEADER = 10**8  # bytes of a .safetensors header, the limit of the safetensors library
TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "|i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
"""Types of .safetensors that rows may have; numpy has no bfloat16, so its bits are kept as whole numbers."""

Read = Callable[[int, int], bytes]
"""Reads bytes ``start..stop-1`` of a file."""


class Layout(NamedTuple):
    """A matrix in row-major order that starts at byte ``offset``."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    bfloat16: bool = False

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def npy_layout(name: str, size: int, read: Read) -> Layout:
    """Read the layout of a ``.npy`` file of ``size`` bytes.

    Raises:
        Refused: another format, a truncated file, or an array that cannot be read row by row.
    """
    header = npy_header(name, size, read(0, min(size, FIRST_BYTES)))
    if header.dtype.itemsize > 8:
        raise Refused(f"{name}: expected numbers of up to 8 bytes, found dtype {header.dtype}")
    if header.fortran_order and sum(length > 1 for length in header.shape) > 1:
        raise Refused(
            f"{name}: stored column by column, so rows cannot be fetched; save numpy.ascontiguousarray(array)"
        )
    return Layout(header.offset, header.shape, header.dtype)


def safetensors_layouts(name: str, size: int, read: Read) -> dict[str, Layout]:
    """Read the layout of each tensor of a ``.safetensors`` file of ``size`` bytes whose type rows can have.

    Raises:
        Refused: another format, or a header that disagrees with itself or with the size.
    """
    head = read(0, min(size, FIRST_BYTES))
    begin = 8 + int.from_bytes(head[:8], "little")
    if len(head) < begin <= min(size, LONGEST_HEADER):
        head += read(len(head), begin)
    with refusing(
        name, f"a whole .safetensors file ({size:,} bytes); it may be truncated, empty or of another format"
    ):
        if not 8 <= begin <= len(head):
            raise ValueError(f"a header of {begin:,} bytes")
        header = head[8:begin]
        entries = {k: _entry(entry) for k, entry in json.loads(header).items() if k != "__metadata__"}
        # Tensors must follow one another without gaps, each of the size that its shape and type need.
        end = 0
        for key, (kind, shape, start, stop) in sorted(entries.items(), key=lambda item: item[1][2:]):
            expected = math.prod(shape) * np.dtype(TYPES[kind]).itemsize if kind in TYPES else stop - start
            if start != end or stop - start != expected:
                raise ValueError(f"tensor {key!r}, {kind} {shape}, is said to lie at bytes {start}-{stop}")
            end = stop
        if begin + end != size:
            raise ValueError(f"its header says {begin + end:,} bytes")
    return {
        key: Layout(begin + start, shape, np.dtype(TYPES[kind]), kind == "BF16")
        for key, (kind, shape, start, stop) in entries.items()
        if kind in TYPES
    }


def _entry(entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    kind, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or not all(type(n) is int and n >= 0 for n in [*shape, start, stop]):
        raise ValueError(f"{entry!r:.200}")
    return kind, tuple(shape), start, stop
