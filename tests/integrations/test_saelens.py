"""SAELens itself: it loads what export writes, with our exact codes, and its autoencoders are taken back.

CI has an environment of its own for these: SAELens brings TransformerLens and much else.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("sae_lens", reason="pip install sae-lens")

from sae_lens import (
    SAE,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)

import seminmf_lightning.integrations.saelens  # noqa: F401  (registers the architecture)
from seminmf_lightning import SemiNMF
from seminmf_lightning.sae_file import read_sae


def rows(count: int = 2000) -> torch.Tensor:
    """Sparse mixtures of 40 directions in 24 dimensions, off centre, in units of their own."""
    generator = torch.Generator().manual_seed(0)
    D = torch.nn.functional.normalize(torch.randn(40, 24, generator=generator), dim=1)
    codes = torch.rand(count, 40, generator=generator) * (torch.rand(count, 40, generator=generator) < 0.1)
    return 30 * codes @ D + 0.3 * torch.randn(count, 24, generator=generator) + 5


def r2(A: torch.Tensor, A_hat: torch.Tensor) -> float:
    return 1 - float((A - A_hat).square().sum() / (A - A.mean(dim=0)).square().sum())


@pytest.mark.parametrize("nonnegative", ["dictionary", "codes"])
def test_saelens_loads_an_export_and_its_exact_codes_are_ours(
    nonnegative: str, tmp_path: Path, command
) -> None:
    A = rows()
    model = SemiNMF(nb_concepts=32, l1_penalty=0.05, normalize="center", nonnegative=nonnegative)
    model.fit(A, max_iter=5)
    model.save(tmp_path / "dictionary.safetensors")
    np.save(tmp_path / "rows.npy", A.numpy())
    command("export", f"run={tmp_path}", "data=npy", f"data.path={tmp_path}/rows.npy", "device=cpu")

    Z = model.encode(A)
    F = Z if nonnegative == "codes" else torch.cat([Z.clamp(min=0), (-Z).clamp(min=0)], dim=1)
    exact = SAE.load_from_disk(tmp_path / "saelens" / "exact")
    assert (exact.encode(A) - F).abs().max() < 1e-5
    assert (exact(A) - model.decode(Z)).abs().max() < 1e-4
    batch = A[:60].reshape(4, 15, 24)
    assert torch.equal(exact.encode(batch).reshape(60, -1), exact.encode(A[:60]))
    exact.save_model(tmp_path / "again")
    assert (SAE.load_from_disk(tmp_path / "again").encode(A) - F).abs().max() < 1e-5

    fitted = SAE.load_from_disk(tmp_path / "saelens")
    assert torch.allclose(fitted.encode(A), read_sae(tmp_path / "saelens").encode(A), atol=1e-4)
    with torch.no_grad():
        print(f"R2 {r2(A, exact(A)):.4f} by exact codes, {r2(A, fitted(A)):.4f} by the fitted encoder")
        assert 0.5 < r2(A, fitted(A)) < r2(A, exact(A))
        folded = SAE.load_from_disk(tmp_path / "saelens", fold_W_dec_norm=True)
        assert torch.allclose(folded(A), fitted(A), atol=1e-3)


@pytest.mark.parametrize("kind", ["topk", "standard"])
def test_an_autoencoder_that_saelens_trained_is_taken_back(kind: str, tmp_path: Path) -> None:
    A = rows()
    torch.manual_seed(0)
    sae: TopKTrainingSAE | StandardTrainingSAE
    if kind == "topk":
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=24, d_sae=60, k=4))
    else:
        sae = StandardTrainingSAE(StandardTrainingSAEConfig(d_in=24, d_sae=60))
    sae.b_dec.data = A.mean(dim=0)
    optimiser = torch.optim.Adam(sae.parameters(), lr=3e-3)
    for _ in range(400):
        features = sae.encode(A)
        features = features.to_dense() if features.is_sparse else features
        loss = (sae.decode(features) - A).square().sum(dim=1).mean()
        loss = loss + (0.0 if kind == "topk" else 8.0) * features.abs().sum(dim=1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    sae.save_inference_model(tmp_path / "sae")

    loaded, ours = SAE.load_from_disk(tmp_path / "sae"), read_sae(tmp_path / "sae")
    with torch.no_grad():
        features = loaded.encode(A)
        features = features.to_dense() if features.is_sparse else features
        assert torch.allclose(ours.encode(A), features, atol=1e-3)
        assert torch.allclose(ours.decode(features), loaded.decode(features), atol=1e-3)
        own = r2(A, loaded.decode(features))
    nonzeros = round(float((features != 0).sum(dim=1).float().mean()))
    model = SemiNMF.from_sae(tmp_path / "sae", nonzeros=nonzeros)
    Z = model.encode(A)
    gain = r2(A, model.decode(Z)) - own
    print(f"{kind}: R2 {own:.4f} by its own encoder, {own + gain:.4f} by from_sae, at {nonzeros} nonzeros")
    assert (Z != 0).sum(dim=1).max() <= nonzeros and (Z >= 0).all()
    assert gain > 0.0
