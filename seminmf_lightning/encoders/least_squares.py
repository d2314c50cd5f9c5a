"""Least-squares codes: the exact minimiser of ``||A - Z D||_F`` (l1_penalty = 0), over ``Z >= 0`` if asked.

Nonnegative codes by the active-set method of Lawson & Hanson, "Solving Least Squares Problems", 1974, chapter
23, which ends at the minimum after finitely many steps.

Legend:  A (n, d)   Z (n, k)   D (k, d)   W = D^+ (d, k)   Q = A D^T (n, k)   G = D D^T (k, k)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from seminmf_lightning.core.linalg import row_space
from seminmf_lightning.encoders import numba_kernels
from seminmf_lightning.encoders.active_set import gram, rounded_gram
from seminmf_lightning.encoders.admm import ADMM
from seminmf_lightning.encoders.base import Effort, Encode, Encoder
from seminmf_lightning.encoders.feature_sign import feature_sign

ROWS_AT_ONCE = 1024
"""Rows that fit a processor's cache in float64."""
SEARCH_ROWS = 256
STEPS_PER_ATOM = 4
"""Most steps of the search; random problems take 1 to 2 per nonzero."""
ROUNDING = 64.0
"""Correlations below this many units of rounding, of the norms that they are products of, count as zero."""

CALIBRATION_ROWS = 128
ITERATIONS, RHO = 50, 1.0
"""ADMM before the batched search: with k = 256 and 173 nonzeros per row, 1 ms per row instead of 23."""
WELL_CONDITIONED = 1e-8
"""Least eigenvalue of G, as a share of the largest, above which its inverse has enough digits."""


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

    def calibrate(self, D: Tensor, sample: Tensor, effort: Effort = ()) -> Effort:
        """Return the share of nonnegative codes above 0 in the sample; nothing if codes are free."""
        if not self.nonnegative or not len(sample):
            return ()
        Z = nonnegative_codes(D)(sample[:CALIBRATION_ROWS])
        return (float((Z > 0).double().mean()),)

    def training(self, D: Tensor, effort: Effort) -> Encode:
        return self.precise(D, effort)

    def precise(self, D: Tensor, effort: Effort = ()) -> Encode:
        if self.nonnegative:
            return self._nonnegative(D, effort)
        space = row_space(D)
        W = space.basis @ space.to_codes
        # In float64: where atoms are nearly collinear W is large, and the rounding of a float32 product as
        # large as the codes.
        return lambda A: torch.cat([(rows.double() @ W.to(A.device)).to(A) for rows in A.split(ROWS_AT_ONCE)])

    def _nonnegative(self, D: Tensor, effort: Effort) -> Encode:
        prepared: list[Encode] = []

        def encode(A: Tensor) -> Tensor:
            atoms = D.to(A)
            if not len(A):
                return A.new_zeros(0, len(D))
            if not prepared:
                (share,) = effort or self.calibrate(atoms, A)
                dense = share > 0.5 and numba_kernels.usable(atoms)
                by_zeros = codes_by_their_zeros(atoms) if dense else None
                prepared.append(by_zeros or nonnegative_codes(atoms))
            return prepared[0](A)

        return encode


def nonnegative_codes(D: Tensor) -> Encode:
    """Return the encoding that takes the atom of largest correlation in, one by one, and keeps codes above 0.

    It ends at the minimum over ``z >= 0``.
    """
    E = D.double()
    # More atoms than features nearly depend on each other as a rule: a float32 search would miss some.
    compiled, precise = numba_kernels.usable(D), len(D) > D.shape[1]
    G = rounded_gram(E, E.dtype if precise else D.dtype) if compiled else gram(D)
    longest = float(E.norm(dim=1).max())
    # Without numba some iterations before the search save most of its steps.
    warm = not precise and not compiled
    admm = ADMM(E, 0.0, RHO, nonnegative=True) if warm else None

    def encode(A: Tensor) -> Tensor:
        # In float64: float32 products over d depend on the shape of the batch, and codes must not.
        Q, start = A.double() @ E.T, None
        if admm is not None:
            _, base, V = admm.start(A.double())
            start = admm.codes(admm.iterate(V, base, ITERATIONS))
        norms, most = A.norm(dim=1) * longest, min(D.shape)
        if compiled and precise:
            return _search(Q, D, G, norms, most).to(A)
        Z = _search(Q.to(A), D, G, norms, most, start)
        if A.dtype != torch.float64 and compiled:
            # A float32 G cannot tell an atom that is nearly dependent on the support from one that is.
            C = (A.double() - Z.double() @ E) @ E.T
            violation = torch.where(Z > 0, C.abs(), C).amax(dim=1)
            rest = (violation > _slack(norms, A.dtype)).nonzero()[:, 0]
            if len(rest):
                Z[rest] = _search(Q[rest], D, E @ E.T, norms[rest], most).to(Z)
        return Z

    return encode


def codes_by_their_zeros(D: Tensor) -> Encode | None:
    """Return the encoding to nonnegative least squares that is fast where few codes are zero.

    With ``z' = A D^+`` and ``K = G^-1`` the codes are ``z = z' + u K``, u the minimiser of
    ``1/2 u K u + u z'`` over ``u >= 0``: the same problem, in which u is nonzero where z is zero.  None if G
    has no exact inverse.
    """
    eigenvalues, vectors = torch.linalg.eigh(D.double() @ D.double().T)
    if len(D) > D.shape[1] or eigenvalues[0] <= WELL_CONDITIONED * eigenvalues[-1]:
        return None
    K = (vectors / eigenvalues) @ vectors.T
    W = D.double().T @ K

    def encode(A: Tensor) -> Tensor:
        free = A.double() @ W
        u = _search(-free, D, K, free.norm(dim=1), len(D))
        return torch.where(u > 0, 0.0, free + u @ K).clamp(min=0).to(A)

    return encode


def _search(
    Q: Tensor, D: Tensor, G: Tensor | None, norms: Tensor, most: int, start: Tensor | None = None
) -> Tensor:
    """Minimise ``1/2 z G z - q z`` over ``z >= 0`` with at most ``most`` nonzeros; compiled on the CPU.

    ``norms`` (n,) bound the numbers whose products q sums up; ``start`` (n, k) are codes to begin with.
    """
    if not len(Q):
        return torch.zeros_like(Q)
    slack = _slack(norms, Q.dtype)
    if numba_kernels.usable(D):
        assert G is not None
        return numba_kernels.lasso(Q, G.to(Q), 0.0, nonnegative=True, slack=slack, most=most)
    first = torch.zeros_like(Q) if start is None else start
    search = partial(
        feature_sign, D=D.to(Q), G=G, penalty=0.0, steps=STEPS_PER_ATOM * len(D), nonnegative=True, most=most
    )
    parts = (x.split(SEARCH_ROWS) for x in (first, Q, slack))
    return torch.cat([search(z, q, slack=s) for z, q, s in zip(*parts, strict=True)])


def _slack(norms: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the correlation (n,) up to which it is rounding."""
    return norms.double() * (ROUNDING * torch.finfo(dtype).eps)
