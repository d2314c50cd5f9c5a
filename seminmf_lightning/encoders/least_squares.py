"""Least-squares codes: the exact minimiser of ``||A - Z D||_F`` (l1_penalty = 0), over ``Z >= 0`` if asked.

Nonnegative codes by the active-set method of Lawson & Hanson, "Solving Least Squares Problems", 1974, chapter
23, which ends at the minimum after finitely many steps.

Legend:  A (n, d)   Z (n, k)   D (k, d)   W = D^+ (d, k)   Q = A D^T (n, k)   G = D D^T (k, k)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from seminmf_lightning.core.linalg import row_space
from seminmf_lightning.encoders import numba_kernels
from seminmf_lightning.encoders.active_set import gram, rounded_gram
from seminmf_lightning.encoders.base import Effort, Encode, Encoder
from seminmf_lightning.encoders.feature_sign import feature_sign

ROWS_AT_ONCE = 8192
SEARCH_ROWS = 256
STEPS_PER_NONZERO = 4
"""Steps of the search per possible nonzero; random problems take 1 to 2."""
ROUNDING = 64.0
"""Correlations below this many units of rounding, of the norms that they are products of, count as zero."""


@dataclass(frozen=True, kw_only=True)
class LeastSquares(Encoder):
    """``Z = A D^+``, the minimum-norm solution if there are several (k > d, repeated or zero atoms).

    With ``nonnegative``: ``min ||a - z D||`` over ``z >= 0``, row by row; at most min(k, d) nonzeros.

    >>> D = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    >>> LeastSquares().precise(D)(torch.tensor([[3.0, -4.0, 5.0]]))
    tensor([[ 3., -2.]])
    >>> LeastSquares(nonnegative=True).precise(D)(torch.tensor([[3.0, -4.0, 5.0]]))
    tensor([[3., 0.]])
    """

    default_for: ClassVar[str | None] = "unpenalised"
    sparse: ClassVar[bool] = False
    supports_nonnegative: ClassVar[bool] = True

    def training(self, D: Tensor, effort: Effort) -> Encode:
        return self.precise(D)

    def precise(self, D: Tensor, effort: Effort = ()) -> Encode:
        if self.nonnegative:
            return nonnegative_codes(D, min(D.shape))
        space = row_space(D)
        W = space.basis @ space.to_codes
        # In float64: where atoms are nearly collinear W is large, and the rounding of a float32 product as
        # large as the codes.
        return lambda A: torch.cat([(rows.double() @ W.to(A.device)).to(A) for rows in A.split(ROWS_AT_ONCE)])


def nonnegative_codes(D: Tensor, most: int) -> Encode:
    """Return the encoding that takes the atom of largest correlation in, one by one, and keeps codes above 0.

    It ends at the minimum over ``z >= 0``, or at ``most`` nonzeros.
    """
    E = D.double()
    longest = float(E.norm(dim=1).max())
    compiled, G = numba_kernels.usable(D), None if numba_kernels.usable(D) else gram(D)
    grams: dict[torch.dtype, Tensor] = {}

    def encode(A: Tensor) -> Tensor:
        if not len(A):
            return A.new_zeros(0, len(D))
        # In float64: float32 products over d depend on the shape of the batch, and codes must not.
        Q, norms = A.double() @ E.to(A.device).T, A.norm(dim=1) * longest
        if compiled:
            if A.dtype not in grams:
                grams[A.dtype] = rounded_gram(E, A.dtype)
            return numba_kernels.nonnegative_least_squares(Q.to(A), grams[A.dtype], norms, most)
        slack = norms.double() * (ROUNDING * torch.finfo(A.dtype).eps)
        parts = [
            feature_sign(
                torch.zeros_like(q),
                q,
                E,
                G,
                0.0,
                STEPS_PER_NONZERO * most,
                nonnegative=True,
                slack=s,
                most=most,
            )
            for q, s in zip(Q.split(SEARCH_ROWS), slack.split(SEARCH_ROWS), strict=True)
        ]
        return torch.cat(parts).to(A)

    return encode
