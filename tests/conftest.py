"""Shared by all tests: small problems, and the scripts run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ROOT
from hypothesis import settings

from seminmf_lightning.core import compiled

if "PYTEST_XDIST_WORKER" in os.environ:  # as many tests as cores run at once: a thread each
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)

# A crowded machine is slow, not wrong: tests have limits of their own.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture
def signed() -> torch.Tensor:
    """Signed rows of low rank and noise (600, 24)."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(600, 6, generator=generator) @ torch.randn(6, 24, generator=generator)
    return A + 0.3 * torch.randn(600, 24, generator=generator)


@pytest.fixture(params=["batched", "compiled"], scope="module")
def both_backends(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run each test of a module twice: with the batched encoders and with those compiled by numba."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "batched":
            patch.setattr(compiled, "njit", None)
        elif compiled.njit is None:
            pytest.skip("numba is not installed")
        yield


@pytest.fixture
def npy(tmp_path: Path, signed: torch.Tensor) -> Path:
    path = tmp_path / "rows.npy"
    np.save(path, signed.numpy())
    return path


@pytest.fixture
def script():
    """Run ``python scripts/<name>.py *arguments``, and return the finished process."""

    def run(
        name: str, *arguments: object, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd=ROOT,
            text=True,
            capture_output=True,
            timeout=240,
            env=os.environ | environment,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return done

    return run


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch):
    """Run ``seminmf <name> *arguments`` in this process."""
    from seminmf_lightning.cli import main

    def run(name: str, *arguments: object) -> None:
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        monkeypatch.setattr("sys.argv", ["/usr/bin/seminmf", name, *map(str, arguments)])
        main.main()

    return run
