"""Where the matrices of a file lie, read from its first bytes and held against its size; the rows stay where
they are."""

from __future__ import annotations

import io
import json
import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

FIRST_BYTES = 2**16  # in one request: all of a usual header
LONGEST_HEADER = 10**8  # of a .safetensors file, as its own library has it
TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
"""Types of .safetensors that rows may have; numpy has no bfloat16, whose bits are carried as they are."""

PARSER = threading.Lock()
"""numpy reads headers by Python's own parser, which in 3.11 is not safe in several threads."""

Read = Callable[[int, int], bytes]
"""Bytes ``start..stop-1`` of the file."""


class Layout(NamedTuple):
    """A matrix in row-major order from byte ``offset`` on."""

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
    """Of a ``.npy`` file of ``size`` bytes.

    Raises:
        ValueError: it is no such file, is truncated, or holds what cannot be read row by row.
    """
    stream = io.BytesIO(read(0, min(size, FIRST_BYTES)))
    try:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(
                f"version {version[0]}.{version[1]} of the format, which plain numbers do not need"
            )
        read_header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        with PARSER:
            shape, fortran_order, dtype = read_header(stream)
    except (ValueError, EOFError) as error:
        raise ValueError(
            f"{name}: not a whole .npy array ({size:,} bytes; {error}); it may be truncated, empty or of another format"
        ) from error
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise ValueError(f"{name}: expected float or integer numbers of up to 8 bytes, found dtype {dtype}")
    if fortran_order and sum(length > 1 for length in shape) > 1:
        raise ValueError(
            f"{name}: stored column by column; rows cannot be fetched: save numpy.ascontiguousarray(array)"
        )
    layout = Layout(stream.tell(), shape, dtype)
    if layout.offset + layout.bytes != size:
        raise ValueError(
            f"{name}: {size:,} bytes, but an array of shape {shape} and type {dtype} needs {layout.offset + layout.bytes:,}; "
            "it is truncated, or holds something else too"
        )
    return layout


def safetensors_layouts(name: str, size: int, read: Read) -> dict[str, Layout]:
    """Of each tensor of a ``.safetensors`` file of ``size`` bytes.  Types that rows cannot have are left out.

    Raises:
        ValueError: it is no such file, or its header and its size do not agree.
    """

    def broken(why: str) -> ValueError:
        return ValueError(
            f"{name}: not a whole .safetensors file ({size:,} bytes; {why}); it may be truncated, empty or of another format"
        )

    first = read(0, min(size, FIRST_BYTES))
    length = int.from_bytes(first[:8], "little")
    begin = 8 + length
    if len(first) < 8 or length > LONGEST_HEADER or begin > size:
        raise broken(f"a header of {length:,} bytes" if len(first) >= 8 else "no header")
    header = first[8:begin] + (read(len(first), begin) if begin > len(first) else b"")
    try:
        entries = json.loads(header)
        found = {key: _entry(entry) for key, entry in entries.items() if key != "__metadata__"}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise broken(f"its header cannot be read: {error}") from error
    end = 0
    for key, (kind, shape, start, stop) in sorted(found.items(), key=lambda one: one[1][2:]):
        expected = math.prod(shape) * np.dtype(TYPES[kind]).itemsize if kind in TYPES else stop - start
        if start != end or stop - start != expected:
            raise broken(
                f"tensor {key!r} of type {kind} and shape {shape} is said to lie at bytes {start}-{stop}"
            )
        end = stop
    if begin + end != size:
        raise broken(f"its header says {begin + end:,} bytes")
    return {
        key: Layout(begin + start, shape, np.dtype(TYPES[kind]), kind == "BF16")
        for key, (kind, shape, start, stop) in found.items()
        if kind in TYPES
    }


def _entry(entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    kind, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
    numbers = [*shape, start, stop]
    if not isinstance(kind, str) or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"{entry!r:.200}")
    return kind, tuple(shape), start, stop
