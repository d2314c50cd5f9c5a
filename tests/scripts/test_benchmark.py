"""The benchmark runs on any rows, and reports a method whose output is wrong instead of its time."""

from __future__ import annotations

import csv
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from benchmark import main
from benchmarks.autoencoders import KINDS
from benchmarks.checks import WRONG, WrongOutputError, check_atoms, check_codes
from scipy.sparse import csc_matrix

A = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))


def test_what_is_wrong_with_codes_is_said() -> None:
    Z, D = A.clone(), torch.eye(6)
    assert check_codes(A, Z, check_atoms(D, longest=1.0, nonnegative=True), nonzeros=6) == 1.0
    for codes, words in (
        (0 * Z, "all codes are zero"),
        (Z * torch.nan, "NaN or Inf"),
        (Z[:-1], r"codes \(29, 6\)"),
        (Z * (torch.arange(6) < 1), "1 nonzeros per row, 6 were asked for"),
        (-Z, "no better than that of zero codes"),
    ):
        with pytest.raises(WrongOutputError, match=words):
            check_codes(A, codes, D, nonzeros=6)
    with pytest.raises(WrongOutputError, match="codes are negative"):
        check_codes(A, Z, D, nonnegative=True)
    for atoms, words in ((0 * D, "zero"), (2 * D, "norm 2, at most 1"), (-D, "negative"), (D / 0, "NaN")):
        with pytest.raises(WrongOutputError, match=words):
            check_atoms(atoms, longest=1.0, nonnegative=True)


def empty_spams() -> ModuleType:
    """A library whose matching pursuit is fast and empty, and whose atoms are too long."""
    fake = ModuleType("spams")
    fake.__spec__ = ModuleSpec("spams", None)
    fake.trainDL = lambda X, K, **_: np.full((len(X), K), 1.0, np.float32)  # type: ignore[attr-defined]
    fake.lasso = lambda X, D, **_: csc_matrix(D.T @ X)  # type: ignore[attr-defined]
    fake.omp = lambda X, D, **_: csc_matrix((D.shape[1], X.shape[1]))  # type: ignore[attr-defined]
    return fake


def test_a_small_run_names_wrong_outputs_and_writes_every_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = torch.randn(600, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    np.save(tmp_path / "rows.npy", rows.numpy())
    monkeypatch.setitem(sys.modules, "spams", empty_spams())
    main([
        "--quick", "--data", str(tmp_path / "rows.npy"), "--concepts=4", "--sparse-concepts=16",
        "--parts", "exact", "sparse", "--output", str(tmp_path), f"--threads={torch.get_num_threads()}",
    ])  # fmt: skip
    with open(tmp_path / "benchmark.csv", newline="") as file:
        found = list(csv.DictReader(file))
    text = (tmp_path / "tables.md").read_text()
    assert "## SemiNMF.fit, codes included, and overcomplete's mu fitted on A^T: 600 rows of 12" in text
    values = {(row["measurement"], row["metric"]): row["value"] for row in found}
    assert values["SPAMS", "omp, 4 nonzeros, rows/s"] == f"{WRONG}: all codes are zero"
    assert "an atom of norm 3.464" in values["SPAMS trainDL", WRONG]
    assert f"{WRONG}: all codes are zero" in text
    quality = {row["measurement"]: row["value"] for row in found if row["metric"] == "4 nonzeros"}
    names = ("seminmf_lightning, ", "random unit atoms", "data rows as atoms", *KINDS)
    for line, start in zip(quality, names, strict=True):
        assert line.startswith(start)
        assert 0 < float(quality[line]) < 1
