"""Read untrusted files: check every claim of a header against the file before using it.

No code in a file is run, and no memory is allocated on a header's word alone; every defect becomes a
ValueError that names the file.  Memory-mapped files must not be truncated while they are read: no process can
survive that.
"""

from __future__ import annotations

import io
import json
import math
import stat
import textwrap
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from safetensors import safe_open
from torch import Tensor

NPY_HEADER_BYTES = 12 + 10_000  # numpy evaluates no header longer than the second number
NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
NPY_PARSER = threading.Lock()
"""numpy reads headers by Python's own parser, which in 3.11 is not safe in several threads."""
NUMBERS = ("F16", "BF16", "F32", "F64", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "BOOL")
WHOLE_NUMBERS = NUMBERS[4:12]


class Refused(ValueError):  # noqa: N818  (says what is wrong with the file)
    """A file was refused: the message names it, what was found and what is accepted."""


@contextmanager
def refusing(path: object, what: str) -> Iterator[None]:
    """Raise Refused, "not ``what``", for any error of a parser; a missing or forbidden file keeps its own."""
    try:
        yield
    except (FileNotFoundError, PermissionError, Refused):
        raise
    except Exception as error:  # RecursionError, OverflowError, MemoryError, struct.error, ...
        cause = textwrap.shorten(f"{type(error).__name__}: {error}", 300, placeholder=" ...")
        raise Refused(f"{path}: not {what} ({cause})") from error


def file_size(path: Path) -> int:
    """Return the bytes of a regular file.

    Raises:
        FileNotFoundError: it does not exist.
        Refused: it is a folder, a device, or a pipe, which might never end.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise Refused(f"{path}: not a regular file; folders, devices and pipes are not read")
    return status.st_size


class NpyHeader(NamedTuple):
    """Offset, shape and type of the array in a ``.npy`` file."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool


def npy_header(path: object, size: int, head: bytes, kinds: str = "fiub") -> NpyHeader:
    """Read the header of a ``.npy`` file of ``size`` bytes from its first bytes.

    ``kinds`` are numpy's letters of the accepted types. The file must end where its array does: a header that
    states too few rows would silently lose the others.

    Raises:
        Refused: another format, a type that is not accepted, no rows, or another size.
    """
    if head[:4] == b"PK\x03\x04":
        raise Refused(f"{path}: a zip archive, as numpy.savez writes; save each array with numpy.save")
    with refusing(
        path, f"a whole .npy array ({size:,} bytes); it may be truncated, empty or of another format"
    ):
        stream = io.BytesIO(head[:NPY_HEADER_BYTES])
        version = np.lib.format.read_magic(stream)
        if version not in NPY_HEADERS:
            raise Refused(f"{path}: .npy format {version[0]}.{version[1]}; 1.0 and 2.0 are read")
        with NPY_PARSER:
            shape, fortran_order, dtype = NPY_HEADERS[version](stream)
        if dtype.kind not in kinds or dtype.hasobject:
            raise Refused(f"{path}: expected float or integer numbers, found dtype {dtype}")
        if any(type(length) is not int or length < 1 for length in shape):
            raise Refused(f"{path}: the array is empty: its shape is {shape}")
        expected = stream.tell() + math.prod(shape) * dtype.itemsize
        if expected != size:
            raise Refused(
                f"{path}: {size:,} bytes, but its header says {expected:,} ({dtype} {shape}); it is "
                "truncated, or more follows than one array"
            )
        return NpyHeader(stream.tell(), shape, dtype, fortran_order)


def open_npy(path: Path, kinds: str = "fiub") -> np.ndarray:
    """Memory-map the array of a ``.npy`` file, copy-on-write (torch warns of read-only memory).

    Raises:
        FileNotFoundError, Refused: see :func:`npy_header`.
    """
    size = file_size(path)
    with open(path, "rb") as stream:
        header = npy_header(path, size, stream.read(NPY_HEADER_BYTES), kinds)
    order: Literal["F", "C"] = "F" if header.fortran_order else "C"
    with refusing(path, "an array that can be mapped"):
        return np.memmap(path, header.dtype, "c", header.offset, header.shape, order)


def open_safetensors(path: Path) -> safe_open:
    """Memory-map a ``.safetensors`` file; the library checks the sizes in its header against its length."""
    size = file_size(path)
    what = f"a whole .safetensors file ({size:,} bytes); it may be truncated, empty or of another format"
    with refusing(path, what):
        return safe_open(path, framework="pt")


def read_tensor(path: Path, handle: safe_open, name: str, accepted: Sequence[str] = NUMBERS) -> Tensor:
    """Return one tensor of an open file, a view of it."""
    with refusing(path, f"a file with a tensor {name!r}"):
        names = list(handle.keys())
        if name not in names:
            raise Refused(f"{path}: no tensor {name!r}; it holds {', '.join(sorted(names)) or 'none'}")
        dtype = handle.get_slice(name).get_dtype()
        if dtype not in accepted:
            raise Refused(f"{path}: tensor {name!r} has type {dtype}; accepted: {', '.join(accepted)}")
        tensor: Tensor = handle.get_tensor(name)
        return tensor


def parse_json(path: object, text: str | bytes, what: str) -> Any:
    """Parse JSON that was read from ``path``; a key that an object has twice is refused, not dropped."""
    with refusing(path, what):
        return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(one for one in names if names.count(one) > 1)[:80]!r} occurs twice")
    return content
