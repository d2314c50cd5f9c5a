"""How much rows vary about the mean of each feature, gathered in parts.

The sum of squares less that of the mean would lose the variation of rows that have a large offset in common.
So parts are merged instead, by Chan, Golub & LeVeque, "Algorithms for computing the sample variance", Am.
Stat. 37(3), 1983: ``V = V_1 + V_2 + |m_1 - m_2|^2 n_1 n_2 / (n_1 + n_2)``.

A part is one vector (d + 2,) float64: n rows, variation V, and the mean m (d,) of each feature.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROUNDING = 1e-14
"""Of a feature's mean, relative: rows that vary no more are alike."""


def none_seen(features: int) -> Tensor:
    """The part of no rows."""
    return torch.zeros(features + 2, dtype=torch.float64)


def of_rows(A: Tensor) -> Tensor:
    """The part of rows A (m, d), in two passes."""
    if not len(A):
        return none_seen(A.shape[1]).to(A.device)
    A = A.double()
    mean = A.mean(dim=0)
    return torch.cat([mean.new_tensor([len(A)]), (A - mean).square().sum()[None], mean])


def merged(parts: Tensor) -> Tensor:
    """The part of all rows of ``parts`` (p, d + 2), those of some batches or processes."""
    n, within, means = parts[:, 0], parts[:, 1], parts[:, 2:]
    share = n / n.sum().clamp(min=1)
    origin = means[n.argmax()]  # differences of means are small, their sums need not be
    offset = share @ (means - origin)
    between = (n * (means - origin - offset).square().sum(dim=1)).sum()
    return torch.cat([n.sum()[None], (within.sum() + between)[None], origin + offset])


def variation(part: Tensor) -> tuple[float, float]:
    """``sum_i ||a_i - m||^2``, 0 where it is no more than rounding, and ``sum_i ||a_i||^2``; infinite above
    float64."""
    n, within, mean = float(part[0]), float(part[1]), part[2:]
    of_mean = n * float(mean.square().sum())
    only_rounding = within <= ROUNDING**2 * of_mean < math.inf
    return (0.0 if only_rounding else within), within + of_mean
