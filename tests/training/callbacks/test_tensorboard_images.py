"""What TensorBoard gets of the strongest concepts."""

from __future__ import annotations

import pytest
import torch

from seminmf_lightning.training.callbacks.tensorboard_images import escaped, r2_against_l0


def test_r2_against_l0_keeps_all_first_and_only_falls_in_nonzeros() -> None:
    generator = torch.Generator().manual_seed(0)
    D = torch.rand(6, 10, generator=generator)
    Z = torch.randn(80, 6, generator=generator) * (torch.rand(80, 6, generator=generator) < 0.5)
    l0, r2 = r2_against_l0(Z @ D, Z, D)
    assert float(l0[0]) == pytest.approx(float((Z != 0).sum(1).float().mean()))
    assert float(r2[0]) == pytest.approx(1, abs=1e-6)
    assert (l0.diff() <= 0).all()
    assert r2_against_l0(torch.ones(3, 10), torch.zeros(3, 6), D)[0].tolist() == [0.0] * 64


def test_tokens_are_harmless_in_markdown() -> None:
    assert escaped("a|b <i>*x*\n\n# y") == "a&#124;b &#60;i&#62;&#42;x&#42; &#35; y"
