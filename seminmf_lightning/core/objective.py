"""Objectives, and certificates of the distance from the best possible one.

Legend:  A (n, d)   Z (n, k)   D (k, d)   C = A^T A (d, d)
"""

from __future__ import annotations

import torch
from torch import Tensor

from seminmf_lightning.core.linalg import RowSpace

ROUNDING = 16 * torch.finfo(torch.float64).eps
"""Rounding of a squared error computed from float64 sums, as a share of ``||A||_F^2``; at most 5.5 eps were
measured for 10 to 400 features."""
NOTHING = 1e-12
"""A squared error below this share of the variation of the rows is zero for every practical purpose."""


def squared_error(C: Tensor, space: RowSpace) -> Tensor:
    """Return ``min_Z ||A - Z D||_F^2 = tr(C) - tr(Q^T C Q)``, from the second moment alone (float64)."""
    return (C.trace() - ((C @ space.basis) * space.basis).sum()).clamp(min=0)


def eckart_young_bound(C: Tensor, concepts: int) -> Tensor:
    """Return the least squared error of any rank-k matrix: the sum of the d - k smallest eigenvalues of C.

    No dictionary of ``concepts`` atoms, nonnegative or not, goes below it (Eckart & Young, 1936).

    >>> float(eckart_young_bound(torch.diag(torch.tensor([1.0, 2.0, 4.0])), concepts=1))
    3.0
    """
    eigenvalues: Tensor = torch.linalg.eigvalsh(C)
    # Negative eigenvalues are rounding and cancel positive ones; without them the bound would be too high.
    return eigenvalues[: max(0, C.shape[0] - concepts)].sum().clamp(min=0)


def optimality_gap(
    error: float, bound: float, rounding: float, spread: float, *, attainable_zero: bool = False
) -> float | None:
    """Return a certified ``error / bound - 1``: the optimum lies between ``bound`` and ``error``.

    Args:
        error: ``||A - Z D||_F^2``.
        bound: least possible value of it.
        rounding: largest error of ``error`` and ``bound``, which a certificate must not hide: the value is
            ``(error + rounding) / (bound - rounding) - 1``.
        spread: variation of the rows about their mean, ``||A - mean||_F^2``.
        attainable_zero: whether the least possible value is known to be 0, as it is for k >= d.

    Returns:
        The gap.  If the bound is 0, or lost in a rounding that is negligible beside the spread: the error as
        a share of ``spread``.  Else None: nothing can be certified (rows with a large common offset lose
        their digits; ``normalize=center`` removes it).

    >>> optimality_gap(error=1.5, bound=1.0, rounding=0.0, spread=10.0)
    0.5
    >>> optimality_gap(error=1.5, bound=1.0, rounding=3.0, spread=10.0) is None
    True
    """
    if bound > 2 * rounding and not attainable_zero:
        return (error + rounding) / (bound - rounding) - 1.0
    if not attainable_zero and rounding > NOTHING * spread:
        return None
    return 0.0 if error <= 2 * rounding else error / spread if spread > 0 else None


def lasso_duality_gap(
    A: Tensor, Z: Tensor, D: Tensor, l1_penalty: float, *, nonnegative: bool = False
) -> tuple[Tensor, Tensor]:
    """Return objective and duality gap of lasso codes, each (n,): the best objective is within ``gap``.

    The dual point is the residual r = a - z D, shrunk until ``||theta D^T||_inf <= l1_penalty``, or, for
    nonnegative codes, ``max_j <theta, D_j> <= l1_penalty``; its value is ``<a, theta> - 1/2 ||theta||^2``
    (Kim, Koh, Lustig, Boyd & Gorinevsky, 2007).

    >>> D = torch.eye(2)
    >>> objective, gap = lasso_duality_gap(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.0]]), D, 0.5)
    >>> float(objective), float(gap)
    (0.375, 0.0)
    """
    residual = A - Z @ D
    primal = 0.5 * residual.square().sum(dim=1) + l1_penalty * Z.abs().sum(dim=1)
    correlation = residual @ D.T
    correlation = (correlation if nonnegative else correlation.abs()).amax(dim=1)
    shrink = (
        (l1_penalty / correlation.clamp(min=l1_penalty)) if l1_penalty > 0 else torch.zeros_like(correlation)
    )
    dual = shrink * (A * residual).sum(dim=1) - 0.5 * shrink.square() * residual.square().sum(dim=1)
    return primal, (primal - dual).clamp(min=0)


def nonnegativity_residual(A: Tensor, Z: Tensor, D: Tensor) -> Tensor:
    """Return how far codes are from the minimum of ``||a - z D||`` over z >= 0, (n,): 0 there.

    The largest violation of its Karush-Kuhn-Tucker conditions, over ``||a||`` and the length of the longest
    atom: with ``c = (a - z D) D^T``, c_j may not be above 0, nor other than 0 where ``z_j > 0``.

    >>> D = torch.eye(2)
    >>> nonnegativity_residual(torch.tensor([[1.0, -1.0]]), torch.tensor([[1.0, 0.0]]), D).tolist()
    [0.0]
    """
    correlation = (A - Z @ D) @ D.T
    violation = torch.where(Z > 0, correlation.abs(), correlation.clamp(min=0)).amax(dim=1)
    scale: Tensor = A.norm(dim=1) * D.norm(dim=1).max()
    return violation / scale.clamp(min=torch.finfo(A.dtype).tiny)


def refit_residual(A: Tensor, Z: Tensor, E: Tensor, *, nonnegative: bool = False) -> Tensor:
    """Return how far codes Z (n, m) are from the minimum of ``||a - z E||`` on the atoms E (n, m, d) of each
    row, (n,): of the size of rounding there.

    The largest violation of the Karush-Kuhn-Tucker conditions: with ``c = (a - z E) E^T``, c_j must be 0, or,
    for nonnegative codes that are 0, at most 0.  Relative to ``||E_j|| (||a|| + sum_i |z_i| ||E_i||)``, the
    numbers that c_j is a difference of.

    >>> A, E = torch.tensor([[1.0, -1.0]]), torch.eye(2)[None]
    >>> refit_residual(A, torch.tensor([[1.0, 0.0]]), E, nonnegative=True).tolist()
    [0.0]
    >>> round(float(refit_residual(A, torch.tensor([[1.0, 0.0]]), E)), 3)
    0.414
    """
    correlation = ((A - (Z[:, None] @ E)[:, 0])[:, None] @ E.mT)[:, 0]
    lengths = E.norm(dim=2)
    scale = lengths * (A.norm(dim=1) + (Z.abs() * lengths).sum(dim=1))[:, None]
    allowed = (Z == 0) & (correlation < 0) if nonnegative else torch.zeros_like(Z, dtype=torch.bool)
    violation = torch.where(allowed, 0.0, correlation.abs())
    residual: Tensor = (violation / scale.clamp(min=torch.finfo(A.dtype).tiny)).amax(dim=1)
    return residual
