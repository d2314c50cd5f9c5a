"""The autoencoders that benchmarks compare with are trained, tuned, and read by the package."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import autoencoders
from safetensors.torch import load_file

from seminmf_lightning import SemiNMF


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    codes = generator.standard_exponential((3000, 20)) * (generator.random((3000, 20)) < 0.1)
    np.save(tmp_path / "rows.npy", (5 * codes @ generator.standard_normal((20, 12)) + 1).astype(np.float32))
    return tmp_path / "rows.npy"


@pytest.mark.parametrize("kind", autoencoders.KINDS)
def test_an_autoencoder_is_tuned_saved_in_data_units_and_read(
    kind: str, rows: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--concepts 32 --nonzeros 4 --seconds 2 --tuning 0.3 --held-out 500 --rates 1e-6 3e-3"
    arguments = [str(rows), "--output", str(rows.parent), *options.split(), "--kinds", kind]
    monkeypatch.setattr(sys, "argv", ["autoencoders.py", *arguments])
    autoencoders.main()
    told = capsys.readouterr().out
    assert "at rate 0.003" in told  # 1e-6 hardly leaves its start
    file = rows.parent / f"{kind}.safetensors"
    weights = load_file(file)
    assert torch.allclose(weights["W_dec"].norm(dim=1), torch.ones(32), atol=1e-5)
    assert ("threshold" in weights) == (kind == "batch_topk")
    A = torch.from_numpy(np.load(rows)[-500:])
    Z = (A - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
    if kind == "batch_topk":
        Z = torch.where(weights["threshold"] <= Z, Z, 0.0)
    else:
        Z = Z if kind == "abs_topk" else Z.relu()
        Z = torch.where(Z.abs() >= Z.abs().topk(4, dim=1).values[:, -1:], Z, 0.0)
    error = (A - Z @ weights["W_dec"] - weights["b_dec"]).square().sum()
    r2 = float(1 - error / (A - A.mean(dim=0)).square().sum())
    assert r2 == pytest.approx(float(told.split("held-out r2 ")[1].split()[0]), abs=2e-3)
    assert r2 > 0.3
    assert SemiNMF.from_sae(file, nonzeros=4).get_dictionary().shape == (32, 12)
