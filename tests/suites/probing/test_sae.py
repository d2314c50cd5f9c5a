"""Sparse autoencoders from files: codes as written, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from seminmf_lightning.suites.probing.sae import sae_features

CPU = torch.device("cpu")


def weights(d: int = 6, m: int = 10) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (d, m), "b_enc": (m,), "W_dec": (m, d), "b_dec": (d,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("nonzeros", [None, 3])
def test_codes_row_by_row(nonzeros: int | None, tmp_path: Path) -> None:
    W, A = weights(), torch.randn(20, 6)
    save_file(W, tmp_path / "a.safetensors", metadata={"k": "3"} if nonzeros else None)
    line = sae_features(str(tmp_path / "a.safetensors"), 6, None, CPU)
    Z = line.codes(A)
    for a, z in zip(A, Z, strict=True):
        plain = torch.stack([((a - W["b_dec"]) @ W["W_enc"][:, j] + W["b_enc"][j]).relu() for j in range(10)])
        if nonzeros:
            plain[plain < plain.sort(descending=True).values[nonzeros - 1]] = 0
        assert torch.allclose(z, plain, atol=1e-5)
    assert line.decode is not None
    assert torch.allclose(line.decode(Z), Z @ W["W_dec"] + W["b_dec"])
    given = sae_features(str(tmp_path / "a.safetensors"), 6, 1, CPU)
    assert (given.codes(A) != 0).sum(dim=1).max() == 1


def test_abs_topk_keeps_the_largest_codes_of_either_sign(tmp_path: Path) -> None:
    W, A, file = weights(), torch.randn(20, 6), tmp_path / "a.safetensors"
    save_file(W, file, metadata={"k": "3", "activation": "abs_topk"})
    codes = (A - W["b_dec"]) @ W["W_enc"] + W["b_enc"]
    least = codes.abs().sort(dim=1, descending=True).values[:, 2:3]
    expected = torch.where(codes.abs() >= least, codes, 0.0)
    assert torch.allclose(sae_features(str(file), 6, None, CPU).codes(A), expected)
    assert (expected < 0).any()
    save_file(W, file, metadata={"activation": "abs_topk"})
    with pytest.raises(ValueError, match=r"AbsTopK without a number of codes; set suite.probes.sae_nonzeros"):
        sae_features(str(file), 6, None, CPU)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file(weights(), file)
    with pytest.raises(ValueError, match=r"a\.safetensors: an autoencoder of 6 features, but the run has 8"):
        sae_features(str(file), 8, None, CPU)
    with pytest.raises(ValueError, match=r"11 nonzeros of 10 codes"):
        sae_features(str(file), 6, 11, CPU)
    save_file(weights() | {"W_dec": torch.zeros(10, 7)}, file)
    with pytest.raises(ValueError, match=r"do not belong together; expected \(d, m\), \(m,\) and \(m, d\)"):
        sae_features(str(file), 6, None, CPU)
    save_file({"W_enc": torch.zeros(6, 10)}, file)
    with pytest.raises(ValueError, match=r"no tensor 'b_enc'; it holds W_enc"):
        sae_features(str(file), 6, None, CPU)
    save_file(weights(), file, metadata={"k": "many"})
    with pytest.raises(ValueError, match=r"metadata k='many' is a whole number"):
        sae_features(str(file), 6, None, CPU)
    torch.save(weights(), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt: a pickle can run any code, and is not read"):
        sae_features(str(tmp_path / "a.pt"), 6, None, CPU)


def test_a_threshold_in_the_file_decides_unless_a_number_is_given(tmp_path: Path) -> None:
    W, A, file = weights(), torch.randn(20, 6), tmp_path / "a.safetensors"
    codes = ((A - W["b_dec"]) @ W["W_enc"] + W["b_enc"]).relu()
    for threshold in (torch.tensor(1.5), torch.linspace(0.5, 2, 10)):
        metadata = {"k": "3", "activation": "batch_topk"}
        save_file(W | {"threshold": threshold}, file, metadata=metadata)
        expected = torch.where(codes >= threshold, codes, 0.0)
        assert torch.allclose(sae_features(str(file), 6, None, CPU).codes(A), expected)
    assert len(set((expected != 0).sum(dim=1).tolist())) > 1  # rows differ in their number of codes
    assert (sae_features(str(file), 6, 2, CPU).codes(A) != 0).sum(dim=1).max() == 2
    save_file(W | {"threshold": torch.zeros(3)}, file)
    with pytest.raises(ValueError, match=r"threshold \(3,\); expected one number, or one per code \(10,\)"):
        sae_features(str(file), 6, None, CPU)
