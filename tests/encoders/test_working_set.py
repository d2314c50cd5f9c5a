"""Working sets give the codes of the search on the Gram matrix, row by row, without such a matrix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_problems import DEFECTS, rows_and_atoms
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from seminmf_lightning.core.objective import lasso_duality_gap
from seminmf_lightning.encoders import numba_kernels, working_set
from seminmf_lightning.encoders.active_set import rounded_gram
from seminmf_lightning.encoders.lasso import Lasso

pytest.importorskip("numba", reason="the extra fast is not installed")


def on_gram(A: Tensor, D: Tensor, penalty: float, *, nonnegative: bool = False) -> Tensor:
    """Return the codes of the search on G."""
    E = D.double()
    Q, G = (A.double() @ E.T).to(A), rounded_gram(E, D.dtype)
    return numba_kernels.lasso(Q, G, penalty, nonnegative=nonnegative)


def general(seed: int, k: int = 1500, d: int = 40) -> tuple[Tensor, Tensor]:
    """Return float32 rows and many more signed atoms, whose codes are unique."""
    A, D = rows_and_atoms(seed, k, d, nonnegative=False)
    return A.float(), D.float()


@given(
    st.integers(0, 1000),
    st.sampled_from([(1, 3), (9, 9), (60, 9), (300, 2), (300, 9), (400, 30)]),
    st.sampled_from([1e-4, 0.02, 0.1, 0.5]),
    st.sampled_from([*DEFECTS, "many repeated"]),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_minimisers_of_the_same_problem(
    seed: int, shape: tuple[int, int], penalty: float, defect: str, positive_atoms: bool, nonnegative: bool
) -> None:
    A, D = rows_and_atoms(seed, *shape, defect, nonnegative=positive_atoms)
    if defect == "many repeated":
        D = D[: 1 + len(D) // 4].repeat(4, 1)[: len(D)]
    A[1], A[2] = 0, D[0]
    Z = working_set.lasso(A, D, penalty, nonnegative=nonnegative)
    assert not nonnegative or (Z >= 0).all()
    assert (Z[1] == 0).all()
    objective, gap = lasso_duality_gap(A, Z, D, penalty, nonnegative=nonnegative)
    assert (gap <= 1e-5 * objective + 1e-12).all()
    reference = on_gram(A, D, penalty, nonnegative=nonnegative)
    _, other_gap = lasso_duality_gap(A, reference, D, penalty, nonnegative=nonnegative)
    apart = (2 * gap.clamp(min=0)).sqrt() + (2 * other_gap.clamp(min=0)).sqrt() + 1e-6  # z D is unique
    assert (((Z - reference) @ D).norm(dim=1) <= apart).all()


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("penalty", [0.02, 0.2])
def test_codes_of_the_search_on_the_gram_matrix(penalty: float, nonnegative: bool) -> None:
    A, D = general(0)
    Z = working_set.lasso(A, D, penalty, nonnegative=nonnegative)
    exact = on_gram(A.double(), D.double(), penalty, nonnegative=nonnegative)
    assert ((Z != 0) == (exact.float() != 0)).all() and (Z != 0).any(dim=1).all()
    assert torch.allclose(Z.double(), exact, rtol=1e-5, atol=1e-6)
    rounded = on_gram(A, D, penalty, nonnegative=nonnegative)
    assert torch.allclose(Z, rounded, atol=1e-3 if penalty < 0.1 else 1e-5)  # its G is rounded


@pytest.fixture(params=["usual", "lower precision"])
def precision(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if request.param == "usual" else "medium")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize("repeated", [False, True])
def test_codes_of_a_row_do_not_depend_on_the_others(repeated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    A, D = general(1)
    D = D[:400].repeat(4, 1)[:1500] if repeated else D
    A = torch.cat([A, A * 1.1, A.flip(1), A[:, torch.randperm(40)]])
    whole, threads = working_set.lasso(A, D, 0.05), torch.get_num_threads()
    for sizes in ([60, 60], [1, 0, 7, 112]):
        assert torch.equal(torch.cat([working_set.lasso(x, D, 0.05) for x in A.split(sizes)]), whole)
    try:
        torch.set_num_threads(3)
        assert torch.equal(working_set.lasso(A, D, 0.05), whole)
    finally:
        torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    monkeypatch.setattr(working_set, "CORRELATIONS_AT_ONCE", 10 * len(D))
    assert torch.equal(working_set.lasso(A, D, 0.05), whole)


class Largest(TorchDispatchMode):
    """Record the largest number of entries of a tensor that an operation returns."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else [result]:
            self.entries = max(self.entries, x.untyped_storage().nbytes() if isinstance(x, Tensor) else 0)
        return result


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    A, D = general(2, k=3000, d=8)
    monkeypatch.setattr(working_set, "CORRELATIONS_AT_ONCE", 5 * len(D))
    with Largest() as largest:
        Z = working_set.lasso(A, D, 0.1)
    assert largest.entries == Z.numel() * Z.element_size() < D.shape[0] ** 2
    monkeypatch.setattr(working_set, "CONCEPTS", len(D))
    with Largest() as largest:
        assert torch.equal(Lasso(l1_penalty=0.1).training(D, ())(A), Z)
    assert largest.entries == Z.numel() * Z.element_size()


def test_many_atoms_are_coded_by_working_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    A, D = general(3, k=200, d=12)
    encoder = Lasso(l1_penalty=0.1)
    before = encoder.training(D, ())(A), encoder.precise(D)(A)
    monkeypatch.setattr(working_set, "CONCEPTS", 200)
    for name in ("lasso", "_lasso_rows"):
        monkeypatch.delattr(numba_kernels, name)
    assert encoder.calibrate(D, A) == ()
    assert torch.allclose(encoder.training(D, ())(A), before[0], atol=1e-5)
    assert torch.allclose(encoder.precise(D)(A), before[1], atol=1e-5)
    assert encoder.training(D, ())(A[:0]).shape == (0, 200)
