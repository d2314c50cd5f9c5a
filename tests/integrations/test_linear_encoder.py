"""The linear encoder with thresholds: the best cut of each feature, and features that cannot be fitted."""

from __future__ import annotations

import torch

from seminmf_lightning.integrations.linear_encoder import _cut, fit_linear_encoder


def best_by_trying(p: torch.Tensor, f: torch.Tensor) -> float:
    """The least squared error of a line above a threshold and 0 below it, tried one by one."""
    best = float(f.square().sum())
    order = p.argsort(descending=True)
    for count in range(2, len(p) + 1):
        rows = order[:count]
        X = torch.stack([p[rows], torch.ones(count, dtype=p.dtype)], dim=1)
        line = torch.linalg.lstsq(X, f[rows, None]).solution
        fitted = (X @ line)[:, 0]
        if line[0] > 0 and fitted.min() > 0:
            error = (f[rows] - fitted).square().sum() + f[order[count:]].square().sum()
            best = min(best, float(error))
    return best


def test_the_cut_is_the_best_of_all() -> None:
    generator = torch.Generator().manual_seed(0)
    P = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    F = (P + 0.5 * torch.randn(60, 5, generator=generator, dtype=torch.float64) - 0.5).clamp(min=0)
    gain, offset, threshold = _cut(P, F)
    line = gain * P + offset
    errors = (torch.where(line > threshold, line, 0.0) - F).square().sum(dim=0)
    for column in range(5):
        assert abs(float(errors[column]) - best_by_trying(P[:, column], F[:, column])) < 1e-9


def test_a_feature_that_is_a_threshold_of_a_product_is_found() -> None:
    generator = torch.Generator().manual_seed(1)
    A = torch.randn(4000, 12, generator=generator)
    W = torch.nn.functional.normalize(torch.randn(12, 6, generator=generator), dim=0)
    F = torch.where(A @ W + 0.1 > 1.2, A @ W + 0.1, 0.0)
    encoder = fit_linear_encoder(A[:3000], F[:3000])
    missed = (encoder.encode(A[3000:]) - F[3000:]).square().sum() / F[3000:].square().sum()
    assert missed < 0.05


def test_dead_and_constant_features_and_rows_of_low_rank() -> None:
    generator = torch.Generator().manual_seed(2)
    A = torch.randn(200, 3, generator=generator) @ torch.randn(3, 10, generator=generator)
    F = torch.zeros(200, 3)
    F[:, 1] = A[:, 0].clamp(min=0)
    F[5, 2] = 1.0
    encoder = fit_linear_encoder(A, F)
    assert all(part.isnan().sum() == 0 for part in encoder)
    features = encoder.encode(A)
    assert (features[:, 0] == 0).all() and (features >= 0).all()
    assert torch.corrcoef(torch.stack([features[:, 1], F[:, 1]]))[0, 1] > 0.95
