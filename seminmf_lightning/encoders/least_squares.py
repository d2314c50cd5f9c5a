"""Least-squares codes: the exact minimiser of ``||A - Z D||_F`` (l1_penalty = 0).

Legend:  A (n, d)   Z (n, k)   D (k, d)   W = D^+ (d, k)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from seminmf_lightning.encoders.base import Effort, Encode, Encoder
from seminmf_lightning.linalg import row_space


@dataclass(frozen=True, kw_only=True)
class LeastSquares(Encoder):
    """``Z = A D^+``, of least norm where several are best (k > d, repeated or zero atoms)."""

    sparse: ClassVar[bool] = False

    def training(self, D: Tensor, effort: Effort) -> Encode:
        return self.precise(D)

    def precise(self, D: Tensor, effort: Effort = ()) -> Encode:
        space = row_space(D)
        W = space.basis @ space.to_codes  # float64
        return lambda A: A @ W.to(A)
