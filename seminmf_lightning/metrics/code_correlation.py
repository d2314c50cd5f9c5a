"""How redundant two concepts are.

Legend:  Z (n, k) codes
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seminmf_lightning.metrics.base import DictionaryMetric, Fitted, Value

MOST_CONCEPTS = 4096
"""Concepts whose correlations are all computed: 128 MB of sums in float64."""
CONSTANT = 1e-12
"""Share of its mean square below which the variance of a code is rounding: the code counts as constant."""


class CodeCorrelation(DictionaryMetric):
    """``code_correlation_max`` and ``code_correlation_mean`` of ``|r_jl|`` over the pairs j < l of concepts.

    ``r_jl = (mean(z_j z_l) - mean(z_j) mean(z_l)) / (std(z_j) std(z_l))`` is Pearson's correlation over the
    rows, zero codes included.  Constant codes (dead concepts above all) are left out; NaN if no pair is left.

    Memory is k^2 numbers.  Above :data:`MOST_CONCEPTS` only that many concepts, evenly spread over the
    dictionary, are compared: the mean is then an estimate and the maximum a lower bound.
    """

    values = (
        Value("code_correlation_max", "largest |correlation| of two codes"),
        Value("code_correlation_mean", "mean |correlation| of two codes"),
    )
    chosen: Tensor
    total: Tensor
    gram: Tensor
    rows: Tensor

    def __init__(self, fitted: Fitted) -> None:
        super().__init__(fitted)
        concepts = len(fitted.D)
        count = min(concepts, MOST_CONCEPTS)
        self.add_sums(total=(count,), gram=(count, count), rows=())
        spread = torch.linspace(0, concepts - 1, count, dtype=torch.float64)
        self.register_buffer("chosen", spread.round().long())

    def update(self, Z: Tensor) -> None:
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
