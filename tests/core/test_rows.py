"""Arrays, tensors and loaders as people have them: right, or refused by name."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch.utils.data import DataLoader, IterableDataset

from seminmf_lightning import SemiNMF
from seminmf_lightning.core.rows import RowsOfLoader, finite, real_matrix

NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
PLAIN = np.arange(12.0).reshape(4, 3)


def read_only(x: np.ndarray) -> np.ndarray:
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    "x",
    [
        PLAIN.astype(">f4"), PLAIN.astype(">f8"), PLAIN.astype(">i2"), PLAIN.astype("g"), PLAIN.astype("u4"),
        PLAIN[::-1][::-1], PLAIN[:, ::-1][:, ::-1], np.asfortranarray(PLAIN), np.repeat(PLAIN, 2, 1)[:, ::2],
        read_only(PLAIN.copy()), PLAIN.view(np.recarray), np.ma.masked_array(PLAIN, mask=False),
    ],
    ids=["big float32", "big float64", "big int16", "long double", "unsigned", "reversed rows",
         "reversed columns", "Fortran", "strided", "read-only", "subclass", "nothing masked"],
)  # fmt: skip
def test_unusual_arrays_are_read_right(x: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(real_matrix("A", x).double().numpy(), PLAIN)


@given(
    arrays.arrays(
        st.sampled_from([f"{order}{kind}" for order in "<>" for kind in NUMBERS]),
        st.tuples(st.integers(1, 4), st.integers(1, 4)),
    ),
    st.sampled_from([1, -1]), st.sampled_from([1, -1]),
)  # fmt: skip
def test_every_number_type_and_order_is_read_right(x: np.ndarray, up: int, right: int) -> None:
    x = x[::up, ::right]
    native = x.astype(x.dtype.newbyteorder("="))
    assert np.array_equal(real_matrix("A", x).numpy(), native, equal_nan=native.dtype.kind == "f")


def test_a_memory_map_is_read_and_not_written(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", PLAIN)
    before = (tmp_path / "a.npy").read_bytes()
    for mode in ("r", "r+"):
        mapped = np.load(tmp_path / "a.npy", mmap_mode=mode)  # type: ignore[arg-type]
        SemiNMF(2, solver="hals").fit(mapped, max_iter=3)
    assert (tmp_path / "a.npy").read_bytes() == before


@pytest.mark.parametrize("kind", ["i1", "u1", "i4", "u2", "u4", "u8", "i8"])
def test_integers_that_float32_would_round_become_float64(kind: str) -> None:
    top = int(np.iinfo(kind).max)
    x = np.array([[0, 1], [top // 2, top - top % 4096 if top > 2**53 else top]], dtype=kind)
    rows = SemiNMF(2).sanitize_np_input(x)
    assert rows.dtype == (torch.float64 if top > 2**24 else torch.float32)
    assert int(rows[1, 1]) == int(x[1, 1]) and int(rows[0, 1]) == 1
    assert SemiNMF(1, normalize="none").fit(x, max_iter=2)[1].isfinite().all()


def test_rows_of_booleans_are_zeros_and_ones() -> None:
    x = PLAIN > 4
    assert torch.equal(SemiNMF(2).sanitize_np_input(x), torch.from_numpy(x).float())


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (PLAIN.astype(complex), TypeError, "float or integer numbers, got dtype complex128"),
        (PLAIN.astype(object), TypeError, r"got dtype object; use A.astype\(np.float32\)"),
        (PLAIN.astype(str), TypeError, "got dtype <U"),
        (PLAIN.astype("M8[s]"), TypeError, "got dtype datetime64"),
        (np.zeros((4, 3), [("x", "f4")]), TypeError, "float or integer numbers, got dtype"),
        (np.ma.masked_greater(PLAIN, 7), ValueError, r"row 2 has masked entries \(2 such rows\).*A.filled"),
        (np.ma.masked_array(PLAIN, PLAIN == 4), ValueError, r"row 1 has masked entries \(1 such row\)"),
        (np.ma.masked_all((2, 3)), ValueError, "row 0 has masked entries"),
        (PLAIN[0], ValueError, r"must be 2-D \(rows, columns\), got 1-D \(3,\)"),
        (np.float64(3), TypeError, "got float64"),
        (PLAIN.tolist(), TypeError, "got list"),
        (torch.eye(3).to_sparse(), TypeError, r"torch.sparse_coo one; use A.to_dense\(\)"),
        (torch.eye(3) * 1j, TypeError, "real numbers, got torch.complex64"),
    ],
    ids=lambda value: None if isinstance(value, str | type) else type(value).__name__,
)  # fmt: skip
def test_what_is_not_a_matrix_of_numbers_is_refused_by_name(
    x: object, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        real_matrix("A", x)


def test_a_frame_is_refused_with_the_cure() -> None:
    pandas = pytest.importorskip("pandas", reason="a table that people have")
    with pytest.raises(TypeError, match=r"got DataFrame; use .to_numpy\(\)"):
        real_matrix("A", pandas.DataFrame(PLAIN))


def test_numbers_that_became_infinite_are_named() -> None:
    with np.errstate(over="ignore"):
        x = (PLAIN * 1e4).astype(np.float16)  # 7e4 and more are beyond float16
    with pytest.raises(ValueError, match=r"A: row 2 holds NaN or Inf \(2 such rows\)"):
        SemiNMF(2).fit(x)
    large = torch.full((3, 4), 3e38)
    assert finite("A", large) is large  # their sum overflows, they do not


class Once(IterableDataset):
    """Batches that can be walked once; an `__iter__` of its own kind per example."""

    def __init__(self, rows: torch.Tensor, size: int, generator: bool) -> None:
        self.batches, self.generator = iter(rows.split(size)), generator

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (batch for batch in self.batches) if self.generator else self.batches


@pytest.mark.parametrize("generator", [False, True])
@pytest.mark.parametrize("penalty", [0.0, 0.1])
@pytest.mark.parametrize("n", [700, 20_000])
def test_a_loader_that_can_be_walked_once_loses_no_row(n: int, penalty: float, generator: bool) -> None:
    rows = torch.randn(n, 5, generator=torch.Generator().manual_seed(0))
    model = SemiNMF(3, solver="hals", l1_penalty=penalty)
    with pytest.raises(ValueError, match=rf"no rows when it was iterated again \({n:,} at first\)"):
        model.fit(DataLoader(Once(rows, 300, generator), batch_size=None), max_iter=1)
    again = SemiNMF(3, solver="hals", l1_penalty=penalty)
    again.fit(DataLoader(list(rows.split(300)), batch_size=None), max_iter=1)
    assert torch.equal(model.get_dictionary(), again.get_dictionary())  # learned from every row


def test_a_second_epoch_without_rows_is_an_error() -> None:
    rows = torch.randn(900, 5, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(Once(rows, 300, False), batch_size=None)
    with pytest.raises(ValueError, match=r"no rows when it was iterated again \(900 at first\)"):
        SemiNMF(3, l1_penalty=0.1).fit(loader, max_iter=5)
    for call in (SemiNMF(3).fit, fitted(rows).encode, fitted(rows).evaluate):
        with pytest.raises(ValueError, match="the DataLoader gave no rows"):
            call(loader)


def fitted(rows: torch.Tensor) -> SemiNMF:
    model = SemiNMF(3)
    model.fit(rows, max_iter=1)
    return model


def test_every_epoch_gives_every_row() -> None:
    rows = torch.arange(70.0).reshape(35, 2)
    loader = RowsOfLoader(DataLoader(rows, batch_size=8), lambda name, batch: batch)
    assert torch.equal(loader.sample(20, seed=0), rows[:20])
    for _ in range(3):
        assert torch.equal(torch.cat(list(loader.blocks(8))), rows)
    assert loader.n_rows == 35


def test_batches_that_are_wrong_are_numbered(signed: torch.Tensor) -> None:
    bad = signed.clone()
    bad[205, 0] = float("nan")
    for batches, error, words in (
        (list(bad.split(100)), ValueError, r"batch 2: row 5 holds NaN or Inf"),
        ([signed, signed[:, :3]], ValueError, "batch 1 has 3 features, the batches before have 24"),
        ([{"rows": signed}], TypeError, "batch 0 of the DataLoader is a dict"),
        ([signed, signed[0]], ValueError, "batch 1 must be 2-D"),
    ):
        with pytest.raises(error, match=words):
            SemiNMF(4).fit(DataLoader(batches, batch_size=None))  # type: ignore[arg-type]


def test_a_loader_whose_length_changes_is_mentioned(signed: torch.Tensor) -> None:
    class Shrinking(IterableDataset):
        sizes = iter([600, 500, 500, 500])

        def __iter__(self) -> Iterator[torch.Tensor]:
            return iter(signed[: next(self.sizes)].split(100))

    with pytest.warns(UserWarning, match="600 rows at first and 500 when it was iterated again"):
        Z, _ = SemiNMF(4).fit(DataLoader(Shrinking(), batch_size=None), max_iter=2)
    assert len(Z) == 500
