"""Least-squares codes: the exact minimiser of ``||A - Z D||_F`` (l1_penalty = 0).

Legend:  A (n, d)   Z (n, k)   D (k, d)   W = D^+ (d, k)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from seminmf_lightning.core.linalg import row_space
from seminmf_lightning.encoders.base import Effort, Encode, Encoder

ROWS_AT_ONCE = 8192


@dataclass(frozen=True, kw_only=True)
class LeastSquares(Encoder):
    """``Z = A D^+``, the minimum-norm solution if there are several (k > d, repeated or zero atoms).

    >>> D = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    >>> LeastSquares().precise(D)(torch.tensor([[3.0, -4.0, 5.0]]))
    tensor([[ 3., -2.]])
    """

    default_for: ClassVar[str | None] = "unpenalised"
    sparse: ClassVar[bool] = False

    def training(self, D: Tensor, effort: Effort) -> Encode:
        return self.precise(D)

    def precise(self, D: Tensor, effort: Effort = ()) -> Encode:
        space = row_space(D)
        W = space.basis @ space.to_codes
        # In float64: where atoms are nearly collinear W is large, and the rounding of a float32 product as
        # large as the codes.
        return lambda A: torch.cat([(rows.double() @ W.to(A.device)).to(A) for rows in A.split(ROWS_AT_ONCE)])
