"""Variation of rows about the mean of each feature, merged over batches and processes.

The sum of squares minus that of the mean would cancel if rows share a large offset, so parts are merged by
Chan, Golub & LeVeque, "Algorithms for computing the sample variance", Am. Stat. 37(3), 1983:
``V = V_1 + V_2 + |m_1 - m_2|^2 n_1 n_2 / (n_1 + n_2)``.

A part is one vector (d + 2,) float64: number of rows n, variation V, and the mean m (d,) of each feature.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROUNDING = 1e-14
"""Relative to the mean of a feature: rows that vary no more than this are equal."""


def none_seen(features: int) -> Tensor:
    """Return the part without rows."""
    return torch.zeros(features + 2, dtype=torch.float64)


def of_rows(A: Tensor) -> Tensor:
    """Return the part of rows A (m, d): the mean first, then the deviations from it."""
    if not len(A):
        return none_seen(A.shape[1]).to(A.device)
    A = A.double()
    mean = A.mean(dim=0)
    return torch.cat([mean.new_tensor([len(A)]), (A - mean).square().sum()[None], mean])


def merged(parts: Tensor) -> Tensor:
    """Return the part of all rows of ``parts`` (p, d + 2), one per batch or process."""
    n, within, means = parts[:, 0], parts[:, 1], parts[:, 2:]
    share = n / n.sum().clamp(min=1)
    origin = means[n.argmax()]  # differences of means are small, their sums need not be
    offset = share @ (means - origin)
    between = (n * (means - origin - offset).square().sum(dim=1)).sum()
    return torch.cat([n.sum()[None], (within.sum() + between)[None], origin + offset])


def variation(part: Tensor) -> tuple[float, float]:
    """Return ``sum_i ||a_i - m||^2`` (0 if it is only rounding) and ``sum_i ||a_i||^2``."""
    n, within, mean = float(part[0]), float(part[1]), part[2:]
    of_mean = n * float(mean.square().sum())
    only_rounding = within <= ROUNDING**2 * of_mean < math.inf
    return (0.0 if only_rounding else within), within + of_mean
