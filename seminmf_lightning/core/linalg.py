"""Dense linear algebra that survives nearly collinear and zero atoms.

Legend:  A (n, d) activations   Z (n, k) codes   D (k, d) dictionary   C = A^T A (d, d)
         Q (d, r) orthonormal basis of the row space of D   X (r, k)   least-squares codes Z = A Q X
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

RANK_TOLERANCE = 1e-6
"""A direction is lost when its singular value is below this share of the largest.  Saved dictionaries and
codes are float32: a code magnifies its own rounding, 2^-24, by the inverse of this share, and below it there
is only rounding to magnify."""


class RowSpace(NamedTuple):
    """Row space of a dictionary and the map to least-squares codes, in float64."""

    basis: Tensor  # Q (d, r), Q^T Q = I
    to_codes: Tensor  # X (r, k): the minimum-norm minimiser of ||A - Z D||_F is Z = A Q X


def row_space(D: Tensor) -> RowSpace:
    """Factor D once, in float64, so that ``Z = A D^+ = A Q X``.

    Householder QR of the unit atoms where k <= d, because the normal equations would square their condition
    number; if they are dependent up to ``RANK_TOLERANCE``, the SVD of the triangle without the directions
    below it.  Eigenvectors of D^T D (d, d) where k > d.

    >>> basis, to_codes = row_space(torch.tensor([[2.0, 0.0], [0.0, 4.0]]))
    >>> (torch.tensor([[2.0, 8.0]]).double() @ basis @ to_codes).tolist()
    [[1.0, 2.0]]
    """
    norms = D.double().norm(dim=1)
    inverse_norms = torch.where(norms > 0, 1 / norms, 0.0)
    unit = D.double() * inverse_norms[:, None]
    k, d = D.shape
    if k > d:
        # Weighting atoms by their norms would change the minimum-norm codes: no unit atoms here.
        weight = norms.max().clamp(min=torch.finfo(torch.float64).tiny)
        scaled = D.double() / weight
        values, vectors = torch.linalg.eigh(scaled.T @ scaled)
        kept = values > values[-1] * RANK_TOLERANCE**2
        basis = vectors[:, kept]
        return RowSpace(basis, (basis.T @ scaled.T) / values[kept, None] / weight)
    basis, R = torch.linalg.qr(unit.T)
    diagonal = R.diagonal().abs()
    if diagonal.min() > diagonal.max() * RANK_TOLERANCE:
        identity = torch.eye(k, dtype=R.dtype, device=R.device)
        to_codes = torch.linalg.solve_triangular(R, identity, upper=True).T
        if R.norm() * to_codes.norm() < 1 / RANK_TOLERANCE:
            return RowSpace(basis, to_codes * inverse_norms)
    U, values, Vh = torch.linalg.svd(R)
    kept = values > values[0] * RANK_TOLERANCE
    return RowSpace(basis @ U[:, kept], Vh[kept] / values[kept, None] * inverse_norms)


def idle_atoms(D: Tensor) -> Tensor:
    """Return a mask (k,) of atoms that are zero or linearly dependent on the atoms before them; for k > d
    only of zero atoms.

    >>> idle_atoms(torch.tensor([[1.0, 0.0], [2.0, 0.0]])).tolist()
    [False, True]
    """
    norms: Tensor = D.norm(dim=1)
    if D.shape[0] > D.shape[1]:
        return norms == 0
    R: Tensor = torch.linalg.qr(unit_atoms(D).T, mode="r").R
    return R.diagonal().abs() <= RANK_TOLERANCE


def into_unit_ball(D: Tensor) -> Tensor:
    """Return the nearest dictionary with ``||D_j||_2 <= 1``.

    >>> into_unit_ball(torch.tensor([[0.0, 2.0], [0.5, 0.0]])).round(decimals=3)
    tensor([[0.0000, 1.0000],
            [0.5000, 0.0000]])
    """
    # Slightly inside the ball, so that rounding cannot leave a norm above 1.
    lengths: Tensor = D.norm(dim=1, keepdim=True) * (1 + 4 * torch.finfo(D.dtype).eps)
    return D / lengths.clamp(min=1)


def unit_atoms(D: Tensor) -> Tensor:
    """Scale every nonzero atom to length 1."""
    norms = D.norm(dim=1, keepdim=True)
    return D / torch.where(norms > 0, norms, 1.0)


def float32_unit_atoms(D: Tensor) -> Tensor:
    """Return unit atoms whose entries are float32 numbers, in float64: the dictionary as it will be saved."""
    return unit_atoms(D).float().double()
