"""K-SVD sweeps over rows with sparse codes: sums that do not depend on the split, against naive loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seminmf_lightning.core import compiled
from seminmf_lightning.core.constraints import CONSTRAINTS
from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.learners import Recipe
from seminmf_lightning.solvers.ksvd import KSVD, SparseRows, block_edges

SIZES = (st.integers(0, 10_000), st.integers(0, 40), st.integers(1, 20), st.integers(1, 12))


def problem(seed: int, n: int, k: int, d: int, signs: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows, sparse codes and unit atoms of the right signs."""
    generator, constraint = torch.Generator().manual_seed(seed), CONSTRAINTS[signs]
    D = unit_atoms(constraint.random_atoms(k, d, generator)).float()
    Z = torch.randn(n, k, generator=generator) * (torch.rand(n, k, generator=generator) < 0.3)
    Z = Z.abs() if constraint.nonnegative_codes else Z
    return Z @ D + 0.1 * torch.randn(n, d, generator=generator), Z, D


def dense(rows: SparseRows, k: int) -> Tensor:
    return torch.zeros(len(rows.codes), k).scatter_add_(1, rows.atoms, rows.codes)


def naive_sweep(A: Tensor, Z: Tensor, D: Tensor, signs: str, threshold: float) -> tuple[Tensor, Tensor]:
    """One sweep in float64: every atom of a block from the same residual; then, in each row, its codes one
    by one, from the largest on."""
    constraint, order = CONSTRAINTS[signs], Z.abs().topk(Z.shape[1], dim=1).indices.tolist()
    A, Z, D = A.double(), Z.double().clone(), D.double().clone()
    for start, stop in block_edges(len(D)):
        R, before = A - Z @ D, D.clone()
        for j in range(start, stop):
            target = Z[:, j] @ R + Z[:, j].square().sum() * before[j]
            target = target.clamp(min=0) if constraint.nonnegative_atoms else target
            D[j] = target / target.norm() if target.norm() > 0 else before[j]
        for i in range(len(A)):
            atoms = before.clone()  # those whose code has not been refitted are the old ones
            for j in order[i]:
                if start <= j < stop and Z[i, j] != 0:
                    rest = A[i] - Z[i] @ atoms + Z[i, j] * atoms[j]
                    atoms[j] = D[j]
                    code = rest @ D[j]
                    size = max(float(code if constraint.nonnegative_codes else code.abs()) - threshold, 0.0)
                    Z[i, j] = size if code > 0 else -size
    return D, Z


@pytest.mark.usefixtures("both_backends")
@pytest.mark.parametrize("signs", CONSTRAINTS)
@given(*SIZES)
@settings(max_examples=20, deadline=None)
def test_a_sweep_equals_naive_loops(signs: str, seed: int, n: int, k: int, d: int) -> None:
    A, Z, D = problem(seed, n, k, d, signs)
    rows = SparseRows.of(A, Z, D, most=k)
    ours, memory = KSVD(sweeps=1).improve(
        rows, D, torch.zeros(k, d, dtype=torch.float64), keep=0.0, threshold=0.05,
        constraint=CONSTRAINTS[signs], add_=lambda sums: None,
    )  # fmt: skip
    expected, codes = naive_sweep(A, Z, D, signs, 0.05)
    if bool((memory.clamp(min=0).norm(dim=1) > 0.05).all()):  # else rounding decides on a direction
        torch.testing.assert_close(ours.double(), expected, atol=2e-3, rtol=0)
        torch.testing.assert_close(dense(rows, k).double(), codes, atol=1e-2, rtol=0)
    torch.testing.assert_close(rows.residual, A - dense(rows, k) @ ours, atol=1e-3, rtol=0)
    assert not CONSTRAINTS[signs].forbidden(ours).any()
    torch.testing.assert_close(ours.norm(dim=1), torch.ones(k))
    assert not CONSTRAINTS[signs].nonnegative_codes or (rows.codes >= 0).all()


@pytest.mark.usefixtures("both_backends")
@given(*SIZES, st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_sums_do_not_depend_on_how_rows_are_split(seed: int, n: int, k: int, d: int, m: int) -> None:
    A, Z, D = problem(seed, n, k, d, "none")
    whole, cut = SparseRows.of(A, Z, D, m), n // 3
    parts = [SparseRows.of(A[:cut], Z[:cut], D, m), SparseRows.of(A[cut:].flip(0), Z[cut:].flip(0), D, m)]
    for start, stop in block_edges(k):
        split = parts[0].pull(start, stop) + parts[1].pull(start, stop)
        assert torch.equal(whole.pull(start, stop), split)
    assert torch.equal(SparseRows.joined(parts, A).pull(0, k), whole.pull(0, k))
    assert SparseRows.joined([], A).pull(0, k).eq(0).all()


@given(*SIZES, st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_both_backends_agree(seed: int, n: int, k: int, d: int, m: int) -> None:
    if compiled.njit is None:
        pytest.skip("numba is not installed")
    A, Z, D = problem(seed, n, k, d, "none")
    results = []
    for njit in (compiled.njit, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compiled, "njit", njit)
            rows = SparseRows.of(A, Z, D, m)
            rows.push_(0, k, D, D.flip(0).contiguous(), 0.1, False)
            rows.drop_(torch.tensor([0]), D.flip(0).contiguous())
            results.append((rows.residual, rows.codes))
    torch.testing.assert_close(results[0], results[1], atol=1e-4, rtol=1e-4)


def test_dropped_atoms_leave_their_part_in_the_residual() -> None:
    A, Z, D = problem(0, 30, 6, 8, "codes")
    rows = SparseRows.of(A, Z, D, most=6)
    rows.drop_(torch.tensor([1, 4]), D)
    Z[:, [1, 4]] = 0
    torch.testing.assert_close(rows.residual, A - Z @ D)
    assert torch.equal(dense(rows, 6), Z)


def test_dense_codes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"solver=ksvd .*target_l0 or l1_penalty, or .*encoder=omp"):
        Recipe(nb_concepts=4, solver="ksvd")
    assert Recipe(nb_concepts=4, solver="ksvd", encoder={"name": "omp", "nonzeros": 2}).bounded
