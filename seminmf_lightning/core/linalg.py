"""Dense linear algebra that survives nearly collinear and zero atoms.

Legend:  A (n, d) activations   Z (n, k) codes   D (k, d) dictionary   C = A^T A (d, d)
         Q (d, r) orthonormal basis of the row space of D   X (r, k)   least-squares codes Z = A Q X
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

RANK_TOLERANCE = 1e-6
"""A direction is lost when its singular value is below this share of the largest.  Dictionaries and codes are
float32 in the end: a code magnifies its own rounding, 2^-24, by the inverse of this share, and below it there
is only rounding to magnify."""


class RowSpace(NamedTuple):
    """Row space of a dictionary and the map to least-squares codes, in float64."""

    basis: Tensor  # Q (d, r), Q^T Q = I
    to_codes: Tensor  # X (r, k): the minimum-norm minimiser of ||A - Z D||_F is Z = A Q X


def row_space(D: Tensor) -> RowSpace:
    """Factor D once, in float64, so that ``Z = A D^+ = A Q X``.

    Householder QR of the unit-norm atoms (k <= d): the normal equations would square their condition number.
    Where they are not independent to ``RANK_TOLERANCE``, the SVD of its triangle without the directions
    below; eigenvectors of D^T D (d, d) where k > d.
    """
    norms = D.double().norm(dim=1)
    inverse_norms = torch.where(norms > 0, 1 / norms, 0.0)
    unit = D.double() * inverse_norms[:, None]
    k, d = D.shape
    if k > d:
        # Weighting atoms by their norms would change the minimum-norm codes, so unit atoms are not used here.
        weight = norms.max().clamp(min=torch.finfo(torch.float64).tiny)
        scaled = D.double() / weight
        values, vectors = torch.linalg.eigh(scaled.T @ scaled)
        kept = values > values[-1] * RANK_TOLERANCE**2
        basis = vectors[:, kept]
        return RowSpace(basis, (basis.T @ scaled.T) / values[kept, None] / weight)
    basis, R = torch.linalg.qr(unit.T)
    diagonal = R.diagonal().abs()
    if diagonal.min() > diagonal.max() * RANK_TOLERANCE:
        to_codes = torch.linalg.solve_triangular(
            R, torch.eye(k, dtype=R.dtype, device=R.device), upper=True
        ).T
        if R.norm() * to_codes.norm() < 1 / RANK_TOLERANCE:
            return RowSpace(basis, to_codes * inverse_norms)
    U, values, Vh = torch.linalg.svd(R)
    kept = values > values[0] * RANK_TOLERANCE
    return RowSpace(basis @ U[:, kept], Vh[kept] / values[kept, None] * inverse_norms)


def idle_atoms(D: Tensor) -> Tensor:
    """Which atoms (k,) add no direction to those before them: zero and repeated ones among them; where k > d,
    zero ones."""
    norms = D.norm(dim=1)
    if D.shape[0] > D.shape[1]:
        return norms == 0
    R = torch.linalg.qr(unit_atoms(D).T, mode="r").R
    return R.diagonal().abs() <= RANK_TOLERANCE


def project_atoms(D: Tensor, bounded: bool) -> Tensor:
    """Nearest dictionary with ``D >= 0`` and, if ``bounded``, ``||D_j||_2 <= 1``: the exact projection, row
    by row."""
    D = D.clamp(min=0)
    # A hair inside the ball, so that rounding cannot leave a norm above 1.
    return (
        D / (D.norm(dim=1, keepdim=True) * (1 + 4 * torch.finfo(D.dtype).eps)).clamp(min=1) if bounded else D
    )


def unit_atoms(D: Tensor) -> Tensor:
    """Scale every atom that is not zero to length 1."""
    norms = D.norm(dim=1, keepdim=True)
    return D / torch.where(norms > 0, norms, 1.0)


def float32_unit_atoms(D: Tensor) -> Tensor:
    """Return unit atoms whose entries are float32 numbers, in float64: metrics then belong to the saved
    dictionary."""
    return unit_atoms(D).float().double()
