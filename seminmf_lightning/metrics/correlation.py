"""Whether concepts say the same thing.

Legend:  Z (n, k) codes
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seminmf_lightning.metrics.base import SummedMetric

MOST_CONCEPTS = 4096
"""Concepts whose correlations are all worked out: 128 MB of sums in float64."""
CONSTANT = 1e-12
"""A code whose variance is below this share of its mean square is constant as far as float64 sums can
tell."""


class CodeCorrelation(SummedMetric):
    """``code_correlation_max`` and ``code_correlation_mean``: of ``|r_jl|`` over the pairs j < l of concepts,
    no unit.

    ``r_jl = (mean(z_j z_l) - mean(z_j) mean(z_l)) / (std(z_j) std(z_l))`` is Pearson's correlation over the
    rows, zero codes included.  Pairs with a constant code (dead concepts above all) have none and are left
    out; NaN if no pair is left.

    Memory is k^2 numbers, so that above :data:`MOST_CONCEPTS` only as many concepts, evenly spread over the
    dictionary, are looked at: the mean is then an estimate and the maximum a lower bound.
    """

    chosen: Tensor
    total: Tensor
    gram: Tensor
    rows: Tensor

    def __init__(self, concepts: int) -> None:
        super().__init__()
        count = min(concepts, MOST_CONCEPTS)
        self.register_buffer(
            "chosen", torch.linspace(0, concepts - 1, count, dtype=torch.float64).round().long()
        )
        self.add_sums(total=(count,), gram=(count, count), rows=())

    def update(self, Z: Tensor) -> None:
        """Add the codes of a batch."""
        Z = Z[:, self.chosen].double()
        self.total += Z.sum(dim=0)
        self.gram += Z.T @ Z
        self.rows += len(Z)

    def compute(self) -> dict[str, float]:
        mean, moment = self.total / self.rows, self.gram / self.rows
        covariance = moment - torch.outer(mean, mean)
        varies = covariance.diagonal() > CONSTANT * moment.diagonal()
        covariance = covariance[varies][:, varies]
        pairs = len(covariance) * (len(covariance) - 1)
        deviation = covariance.diagonal().sqrt()
        correlation = (covariance / torch.outer(deviation, deviation)).abs().clamp(max=1).fill_diagonal_(0)
        return {
            "code_correlation_max": float(correlation.max()) if pairs else math.nan,
            "code_correlation_mean": float(correlation.sum() / pairs) if pairs else math.nan,
        }
