"""Objectives, and certificates of the distance from the best possible one.

Legend:  A (n, d)   Z (n, k)   D (k, d)   C = A^T A (d, d)
"""

from __future__ import annotations

import torch
from torch import Tensor

from seminmf_lightning.core.linalg import RowSpace

NOTHING = 1e-12
"""A squared error below this share of ``||A||_F^2`` is zero to working precision."""


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
    return eigenvalues[: max(0, C.shape[0] - concepts)].clamp(min=0).sum()


def optimality_gap(error: float, bound: float, total: float) -> float:
    """Return ``error / bound - 1``: a certificate, because the optimum lies between ``bound`` and ``error``.

    Where the bound is zero to working precision (k >= rank A) the gap is a share of ``total = ||A||_F^2``.
    """
    floor = NOTHING * total
    if bound <= floor:
        return max(0.0, error - bound) / total if total > 0 and error > floor else 0.0
    return error / bound - 1.0


def lasso_duality_gap(A: Tensor, Z: Tensor, D: Tensor, l1_penalty: float) -> tuple[Tensor, Tensor]:
    """Return objective and duality gap of lasso codes, each (n,): the best objective is within ``gap``.

    The dual point is the residual r = a - z D, shrunk until ``||theta D^T||_inf <= l1_penalty``; its value is
    ``<a, theta> - 1/2 ||theta||^2`` (Kim, Koh, Lustig, Boyd & Gorinevsky, 2007).

    >>> D = torch.eye(2)
    >>> objective, gap = lasso_duality_gap(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.0]]), D, 0.5)
    >>> float(objective), float(gap)
    (0.375, 0.0)
    """
    residual = A - Z @ D
    primal = 0.5 * residual.square().sum(dim=1) + l1_penalty * Z.abs().sum(dim=1)
    correlation = (residual @ D.T).abs().amax(dim=1)
    shrink = (
        (l1_penalty / correlation.clamp(min=l1_penalty)) if l1_penalty > 0 else torch.zeros_like(correlation)
    )
    dual = shrink * (A * residual).sum(dim=1) - 0.5 * shrink.square() * residual.square().sum(dim=1)
    return primal, (primal - dual).clamp(min=0)
