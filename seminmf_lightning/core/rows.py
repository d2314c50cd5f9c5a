"""Convert the user's arrays and tensors to plain matrices of numbers, or say what is wrong with them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

if TYPE_CHECKING:
    from typing_extensions import Self


def real_matrix(name: str, x: Any, accepted: str = "a tensor or an ndarray") -> Tensor:
    """Return ``x`` (rows, columns) as a strided tensor of the same type; memory is shared if possible.

    Any byte order, negative strides, read-only arrays and memory maps are fine.

    Raises:
        TypeError: ``x`` is neither a tensor nor an array, or does not hold real numbers.
        ValueError: ``x`` is not 2-D, or entries of a masked array are masked.

    >>> real_matrix("A", np.arange(6, dtype=">i4").reshape(2, 3)[::-1])
    tensor([[3, 4, 5],
            [0, 1, 2]], dtype=torch.int32)
    >>> real_matrix("A", np.ma.masked_array([[1.0, 2.0]], [[False, True]]))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: A: row 0 has masked entries (1 such row); drop them, ...
    """
    if isinstance(x, np.ndarray):
        x = plain_array(name, x)
        # torch supports neither other byte orders nor long doubles, and warns of read-only memory.
        x = np.asarray(x, dtype=np.float64 if x.dtype.itemsize > 8 else x.dtype.newbyteorder("="))
        x = torch.from_numpy(x if x.flags.writeable and min(x.strides, default=0) >= 0 else x.copy())
    if not isinstance(x, Tensor):
        hint = "; use .to_numpy()" if hasattr(x, "to_numpy") else ""
        raise TypeError(f"{name} must be {accepted}, got {type(x).__name__}{hint}")
    if x.layout != torch.strided or x.is_quantized or x.is_nested:
        kind = "quantized" if x.is_quantized else "nested" if x.is_nested else str(x.layout)
        cure = "dequantize()" if x.is_quantized else "to_dense()"
        raise TypeError(
            f"{name} must be a dense tensor of plain numbers, got a {kind} one; use {name}.{cure}"
        )
    if x.is_complex():
        raise TypeError(f"{name} must hold real numbers, got {x.dtype}")
    if x.ndim != 2:
        advice = "; flatten images or tokens to rows first" if x.ndim > 2 else ""
        raise ValueError(f"{name} must be 2-D (rows, columns), got {x.ndim}-D {tuple(x.shape)}{advice}")
    return x.detach()


def plain_array(name: str, x: np.ndarray) -> np.ndarray:
    """Return an array without its mask or subclass, over the same memory.

    Raises:
        TypeError: it does not hold real numbers.
        ValueError: entries of a masked array are masked.
    """
    if x.dtype.kind not in "fiub":
        cure = f"; use {name}.astype(np.float32)" if x.dtype.kind == "O" else ""
        raise TypeError(f"{name} must hold float or integer numbers, got dtype {x.dtype}{cure}")
    if isinstance(x, np.ma.MaskedArray):
        masked = np.flatnonzero(np.ma.getmaskarray(x).reshape(len(x) if x.ndim else 1, -1).any(axis=1))
        if len(masked):
            rows = "row" if len(masked) == 1 else "rows"
            raise ValueError(
                f"{name}: row {masked[0]} has masked entries ({len(masked)} such {rows}); drop them, or give "
                f"the entries numbers with {name}.filled(value)"
            )
    return np.asarray(x)


def as_floats(x: Tensor) -> Tensor:
    """Return ``x`` in float64 if it is, or holds integers that float32 would round; else in float32.

    >>> as_floats(torch.tensor([7])).dtype, as_floats(torch.tensor([2**40 + 1])).dtype
    (torch.float32, torch.float64)
    """
    if x.dtype in (torch.float32, torch.float64):
        return x
    if x.is_floating_point() or x.dtype == torch.bool or not x.numel():
        return x.float()
    exact = x.double()
    return exact if exact.abs().max() > 2**24 else exact.float()


def finite(name: str, rows: Tensor) -> Tensor:
    """Return ``rows``, or raise a ValueError that names the first row with NaN or Inf."""
    if not rows.sum().isfinite():  # a sum of finite numbers may overflow, so look closer
        bad = (~rows.isfinite()).any(dim=1).nonzero()[:, 0]
        if len(bad):
            raise ValueError(
                f"{name}: row {int(bad[0])} holds NaN or Inf ({len(bad)} such rows); "
                "every number must be finite"
            )
    return rows


class RowsInMemory:
    """The rows of a tensor (n, d), block by block; a ValueError if there are none."""

    def __init__(self, A: Tensor) -> None:
        if 0 in A.shape:
            raise ValueError(f"A is empty: its shape is {tuple(A.shape)}")
        self.A = A
        self.n_rows: int | None = len(A)

    def sample(self, most: int, seed: int) -> Tensor:
        """Return at most ``most`` random rows, in their order; errors as :meth:`require_finite`."""
        chosen = torch.randperm(len(self.A), generator=torch.Generator().manual_seed(seed))[:most]
        rows = self.A[chosen.sort().values]
        if not rows.sum().isfinite():
            self.require_finite()
        return rows

    def require_finite(self) -> Self:
        """Return itself; a ValueError names the first row with NaN or Inf, if there is one."""
        finite("A", self.A)
        return self

    def blocks(self, size: int, shuffle: torch.Generator | None = None) -> Iterator[Tensor]:
        """Yield all rows in blocks of ``size``, in a new random order if asked for."""
        A = self.A if shuffle is None else self.A[torch.randperm(len(self.A), generator=shuffle)]
        yield from A.split(size)


class RowsOfLoader:
    """The rows of a DataLoader, checked batch by batch.

    The rows that :meth:`sample` reads are kept for the first epoch, so that a loader that can be iterated
    only once loses none; if a later epoch gets no rows, that is an error.
    """

    def __init__(self, loader: DataLoader[Any], check: Callable[[str, Any], Tensor]) -> None:
        self.loader, self.check = loader, check
        self.first_epoch: Iterator[Tensor] | None = None
        self.n_rows: int | None = None

    def sample(self, most: int, seed: int) -> Tensor:
        """Return the first ``most`` rows, or all if there are fewer."""
        read: list[Tensor] = []
        epoch = self._epoch()
        for rows in epoch:
            read.append(rows)
            if sum(map(len, read)) >= most:
                break
        self.first_epoch = chain(read, epoch)
        return torch.cat(read)[:most]

    def require_finite(self) -> Self:
        """Return itself: every batch is checked when it is read."""
        return self

    def blocks(self, size: int, shuffle: torch.Generator | None = None) -> Iterator[Tensor]:
        """Yield all rows in the loader's own batches and order."""
        epoch, self.first_epoch = self.first_epoch or self._epoch(), None
        return epoch

    def _epoch(self) -> Iterator[Tensor]:
        seen, width = 0, None
        for number, batch in enumerate(self.loader):
            if isinstance(batch, Mapping):
                raise TypeError(
                    f"batch {number} of the DataLoader is a {type(batch).__name__}, expected rows (n, d)"
                )
            rows = self.check(f"batch {number}", batch[0] if isinstance(batch, list | tuple) else batch)
            width = width or rows.shape[1]
            if rows.shape[1] != width:
                raise ValueError(
                    f"batch {number} has {rows.shape[1]} features, the batches before have {width}"
                )
            seen += len(rows)
            yield rows
        if not seen:
            first = "" if self.n_rows is None else f" when it was iterated again ({self.n_rows:,} at first)"
            raise ValueError(
                f"the DataLoader gave no rows{first}: use a data set whose __iter__ starts anew, or collect "
                "the rows in a tensor"
            )
        if self.n_rows not in (None, seen):
            warnings.warn(
                f"the DataLoader gave {self.n_rows:,} rows at first and {seen:,} when it was iterated again",
                stacklevel=2,
            )
        self.n_rows = self.n_rows or seen
