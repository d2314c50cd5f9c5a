"""Kernels compiled by numba (extra ``fast``) and run in as many threads as torch has."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

njit: Any = None  # without numba, `on_cpu` returns False and no kernel is called
with contextlib.suppress(ModuleNotFoundError):
    from numba import njit

Array = np.ndarray


def on_cpu(x: Tensor) -> bool:
    """Return whether numba is installed and ``x`` is on the CPU, where its kernels work."""
    return njit is not None and x.device.type == "cpu"


def in_threads(work: Callable[[slice], Any], n: int) -> list[Any]:
    """Return ``work(rows)`` for slices of n rows, computed in as many threads as torch has.

    The threads should get arrays alone: on a tensor, torch would initialise itself in each of them.
    """
    threads = torch.get_num_threads()
    size = max(1, -(-n // threads))
    return list(_pool(threads).map(work, [slice(i, i + size) for i in range(0, n, size)]))


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def compiled(function: Any, *, reorders: bool = True, error_model: str = "python") -> Any:
    """Compile a kernel, cached where numba finds a folder to write to.

    ``reorders``: terms of a sum may be added in any order, which is faster, and changes the last digits.
    ``error_model="numpy"``: divisions do not check for zero.
    """
    if njit is None:
        return function
    math = True if reorders else {"contract", "nnan", "ninf"}
    options: dict[str, Any] = {"nogil": True, "fastmath": math, "error_model": error_model}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no such folder
        return njit(**options)(function)


in_order = partial(compiled, reorders=False)
"""Compile a kernel whose sums keep their order."""


def inlined(function: Any) -> Any:
    """Make a function part of each kernel that calls it.

    As a function of its own it would be compiled twice, alone and within the kernel, to different last
    digits, and which of the two a kernel calls would depend on whether it comes from the cache.
    """
    return function if njit is None else njit(inline="always")(function)
