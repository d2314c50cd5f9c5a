"""The compiled kernels give the same last digits however they came into the process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_problems import rows_and_atoms
from torch import Tensor

from seminmf_lightning.encoders import numba_kernels, numba_pursuit

numba = pytest.importorskip("numba", reason="the extra fast is not installed")

NO_CACHE = "import numba.core.caching as c; c.CacheImpl._locator_classes = []\n"
FIT = """
import hashlib, torch
from seminmf_lightning import SemiNMF
A = torch.randn(700, 30, generator=torch.Generator().manual_seed(0))
digest = hashlib.sha256()
for settings in ({"l1_penalty": 0.05}, {"encoder": {"name": "omp", "nonzeros": 6}}):
    Z, D = SemiNMF(50, solver="pgd", **settings).fit(A, max_iter=2)
    digest.update(Z.numpy().tobytes() + D.numpy().tobytes())
    digest.update(SemiNMF(50, solver="pgd", **settings).fit(A.double(), max_iter=1)[0].numpy().tobytes())
print(digest.hexdigest())
"""


def inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return Q, G and the norms of rows for 90 correlated atoms."""
    A, D = rows_and_atoms(1, 90, 40)
    return (A @ D.T).to(dtype), (D @ D.T).to(dtype), A.norm(dim=1).to(dtype)


def test_kernels_compiled_anew_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """They call no other compiled function: such a call is resolved differently in the process that compiled
    it."""
    Q, G, norms = inputs(torch.float32)
    before = numba_kernels.lasso(Q, G, 0.02), numba_pursuit.pursue(Q, G, norms, 9)
    for module, name, model in (
        (numba_kernels, "_lasso_rows", "python"), (numba_pursuit, "_pursue_rows", "numpy"),
    ):  # fmt: skip
        options = {"nogil": True, "fastmath": True, "error_model": model}
        monkeypatch.setattr(module, name, numba.njit(**options)(getattr(module, name).py_func))
    after = numba_kernels.lasso(Q, G, 0.02), numba_pursuit.pursue(Q, G, norms, 9)
    assert all(map(torch.equal, before, after))
    assert (before[0] != 0).sum(dim=1).max() > 5 and ((before[1] != 0).sum(dim=1) == 9).all()
    code = "".join(numba_pursuit._pursue_rows.inspect_llvm().values())
    assert "define" in code and not re.search(
        r" call [^(]*@[^(]*_(best|append|forward|backward|project|rotate|leave|add_direction)", code
    )


def test_threads_do_not_change_codes() -> None:
    Q, G, norms = inputs(torch.float32)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append((numba_kernels.lasso(Q, G, 0.05), numba_pursuit.pursue(Q, G, norms, 5)))
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, *results))


@pytest.mark.slow
def test_cold_warm_unwritable_and_no_cache_are_bitwise_equal(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folders = {"cold": tmp_path / "new", "warm": tmp_path / "new", "unwritable": tmp_path / "file" / "folder"}
    digests = {}
    for case, folder in [*folders.items(), ("none", tmp_path / "unused")]:
        code = (NO_CACHE if case == "none" else "") + FIT
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"NUMBA_CACHE_DIR": str(folder)}, text=True,
            capture_output=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        digests[case] = done.stdout
    assert len(set(digests.values())) == 1, digests
    assert list((tmp_path / "new").rglob("*.nbc")) and not (tmp_path / "unused").exists()
