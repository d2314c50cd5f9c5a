"""ADMM for the lasso, over-relaxed, with one cached factor: the iteration for one dictionary, penalty and
rho.

Boyd et al., "Distributed optimization and statistical learning via ADMM", 2011, section 6.4 and (3.4.3).
Nonnegative atoms share one huge eigenvalue, on which proximal gradient methods crawl; the cached inverse
removes it.  The textbook's three updates are written in one variable V.

Legend:  A (n, d)   Z (n, k)   D (k, d)   Q = A D^T (n, k)   G = D D^T (k, k)   R = rho (G + rho I)^-1 (k, k)
         V (n, k) codes + multiplier: the multiplier is U = clip(V, +-penalty / rho), the codes are V - U;
         for nonnegative codes U = min(V, penalty / rho)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seminmf_lightning.encoders.active_set import gram, solve_on_support
from seminmf_lightning.encoders.feature_sign import feature_sign

OVER_RELAXATION = 1.8  # a in the formulas below
ROUNDS = 3  # exact solves on the support, each without the codes whose sign the previous one changed
SEARCH_ROWS, SEARCH_STEPS = 256, 200
CODES_AT_ONCE = 2**25
"""Memory bound: the largest number of entries of a (rows, k) matrix."""


class ADMM:
    """The iteration ``V <- base + (2 - a) U + (V - 2 U) (a R - (a - 1) I)`` with ``base = a Q (G + rho
    I)^-1``."""

    def __init__(self, D: Tensor, penalty: float, rho: float, *, nonnegative: bool = False) -> None:
        self.D, self.penalty, self.rho, self.nonnegative = D, penalty, rho, nonnegative
        self.threshold = penalty / rho
        self.lowest = -math.inf if nonnegative else -self.threshold
        self.G = gram(D)
        self.factor = _relaxed_factor(D, self.G, rho)

    @property
    def rows_at_once(self) -> int:
        return max(1, CODES_AT_ONCE // self.D.shape[0])

    @property
    def iteration_work(self) -> float:
        """Operations per iteration and row."""
        k, d = self.D.shape
        return 2 * k * min(k, 2 * d)

    def correlations(self, A: Tensor) -> Tensor:
        # In float64: float32 products over d depend on the shape of the batch, and codes must not.
        return (A.double() @ self.D.double().T).to(A)

    def start(self, A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return Q, ``base``, and V after one step from zero."""
        Q = self.correlations(A)
        if len(self.factor) == 1:
            base = (Q @ self.factor[0]).add_(Q, alpha=OVER_RELAXATION - 1).div_(self.rho)
        else:
            base = Q.sub((Q @ self.factor[0]) @ self.factor[1]).mul_(OVER_RELAXATION / self.rho)
        return Q, base, base.clone()

    def iterate(self, V: Tensor, base: Tensor, iterations: int) -> Tensor:
        """Return V after some more iterations; V is overwritten."""
        for _ in range(iterations):
            U = V.clamp(self.lowest, self.threshold)
            reflected = torch.sub(V, U, alpha=2)
            constant = torch.add(base, U, alpha=2 - OVER_RELAXATION, out=U)
            if len(self.factor) == 1:
                V = torch.addmm(constant, reflected, self.factor[0], out=V)
            else:
                constant.add_(reflected)
                reflected = reflected @ self.factor[0]
                V = torch.addmm(constant, reflected, self.factor[1], alpha=-OVER_RELAXATION, out=V)
        return V

    def codes(self, V: Tensor, Q: Tensor | None = None) -> Tensor:
        """Return the codes of the state V."""
        if self.nonnegative:
            return (V - self.threshold).clamp(min=0)
        return torch.nn.functional.softshrink(V, self.threshold)

    def finish(self, V: Tensor, Q: Tensor) -> Tensor:
        """Return the codes of the state, made exact on their support."""
        return solve_on_support(self.codes(V), Q, self.D, self.G, self.penalty, ROUNDS)

    def search(self, V: Tensor, Q: Tensor) -> Tensor:
        """Return exact codes, searched from those of the state."""
        parts = zip(V.split(SEARCH_ROWS), Q.split(SEARCH_ROWS), strict=True)
        return torch.cat(
            [
                feature_sign(
                    self.codes(v), q, self.D, self.G, self.penalty, SEARCH_STEPS, nonnegative=self.nonnegative
                )
                for v, q in parts
            ]
        )


def _relaxed_factor(D: Tensor, G: Tensor | None, rho: float) -> tuple[Tensor, ...]:
    """Return ``a R - (a - 1) I`` (k, k); where k > 2 d the pair (D, K) with ``R = I - D K``, K (d, k)."""
    k, d = D.shape
    if G is not None and k <= d:
        shifted = G.clone()
        shifted.diagonal().add_(rho)
        matrix = torch.cholesky_inverse(torch.linalg.cholesky(shifted)).mul_(rho * OVER_RELAXATION)
        matrix.diagonal().sub_(OVER_RELAXATION - 1)
        return (matrix.to(D),)
    E = D.double()
    inner = E.T @ E
    inner.diagonal().add_(rho)
    K = torch.cholesky_solve(E.T, torch.linalg.cholesky(inner))
    if G is None:
        return D, K.to(D)
    matrix = (E @ K).mul_(-OVER_RELAXATION)
    matrix.diagonal().add_(1)
    return (matrix.to(D),)
