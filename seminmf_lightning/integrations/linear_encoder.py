"""Fit a linear encoder with thresholds to exact codes: what tools that know no solver can run.

``f_j = p_j if p_j > t_j else 0`` with ``p = a W + b``, a JumpReLU: Rajamanoharan et al., "Jumping ahead:
improving reconstruction fidelity with JumpReLU sparse autoencoders", 2024.

Legend:  A (n, d) rows   F (n, m) exact features >= 0   W (d, m)   b (m)   t (m) thresholds
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

RIDGE = 1e-4
"""Added to the variance of each direction, as a share of their mean: rows of low rank have directions without
any."""
COLUMNS = 512
"""Features whose n pre-activations are sorted at a time."""


class LinearEncoder(NamedTuple):
    """Weights of ``f = p [p > t]``, ``p = a W + b``."""

    W: Tensor
    b: Tensor
    threshold: Tensor

    def encode(self, A: Tensor) -> Tensor:
        """Return the features (n, m) of rows A (n, d).

        >>> encoder = LinearEncoder(torch.tensor([[1.0, -1.0]]), torch.zeros(2), torch.tensor([0.5, 2.0]))
        >>> encoder.encode(torch.tensor([[0.4], [1.0], [-3.0]])).tolist()
        [[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]]
        """
        P = A @ self.W + self.b
        return torch.where(self.threshold < P, P, 0.0)


def fit_linear_encoder(A: Tensor, F: Tensor) -> LinearEncoder:
    """Return the encoder whose features are nearest F (n, m) on rows A (n, d).

    The direction of each feature is that of the ridge regression of F on A.  Then, for every possible
    threshold at once, the affine map of the pre-activations above it that fits F best, and of these the
    threshold with the least squared error: exact, since sums over the largest pre-activations are cumulative.

    >>> A = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0))
    >>> F = torch.where(A > 1.0, A, 0.0)
    >>> missed = fit_linear_encoder(A, F).encode(A) - F
    >>> bool(missed.square().sum() < 0.02 * F.square().sum())
    True
    """
    mean, X = A.double().mean(dim=0), A.double()
    X = X - mean
    C = X.T @ X
    C.diagonal().add_(RIDGE * C.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny))
    factor = torch.linalg.cholesky(C)
    parts = []
    for block in F.split(COLUMNS, dim=1):
        W = torch.cholesky_solve(X.T @ block.double(), factor)
        gain, offset, threshold = _cut(X @ W, block.double())
        parts.append((W * gain, offset - mean @ (W * gain), threshold))
    return LinearEncoder(*(torch.cat(list(one), dim=-1).to(A) for one in zip(*parts, strict=True)))


def _cut(P: Tensor, F: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return for each column the gain, the offset, and the threshold of ``gain p + offset``, all (m,).

    Where c rows are above a threshold, the least-squares line through their (p, f) leaves
    ``sum f^2 - (sum f)^2 / c - cov(p, f)^2 / var(p)``, and each row below its ``f^2``.
    """
    n, tiny = len(P), torch.finfo(torch.float64).tiny
    P, order = P.sort(dim=0, descending=True)
    F = F.gather(0, order)
    count = torch.arange(1, n + 1, dtype=P.dtype, device=P.device)[:, None]
    p, f = P.cumsum(0), F.cumsum(0)
    variance = (P.square().cumsum(0) - p.square() / count).clamp(min=tiny)
    covariance = (P * F).cumsum(0) - p * f / count
    gain = covariance / variance
    offset = (f - gain * p) / count
    explained = f.square() / count + covariance.square() / variance
    # Features are positive above the threshold and grow with p; the last row of a run of equal p ends it.
    after = torch.cat([P[1:], P[-1:] - 1])
    usable = (gain > 0) & (gain * P + offset > 0) & (after < P) & (count > 1)
    explained = explained.where(usable, -torch.inf)
    best = explained.argmax(dim=0, keepdim=True)
    found = explained.gather(0, best) > 0
    gain, offset, last, below = (one.gather(0, best) for one in (gain, offset, P, after))
    middle = gain * (last + below) / 2 + offset
    threshold = torch.where(found, middle.clamp(min=0), torch.inf)
    return (torch.where(found, gain, 0)[0], torch.where(found, offset, 0)[0], threshold[0])
