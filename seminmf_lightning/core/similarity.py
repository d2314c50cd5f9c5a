"""Compare the atoms of one or two dictionaries by their cosines.

A zero atom has cosine 0 with every atom, including itself; it is never left out.

Legend:  D (k, d), D1 (k1, d), D2 (k2, d) dictionaries
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from seminmf_lightning.core.checks import real_number
from seminmf_lightning.core.linalg import unit_atoms

BLOCK_ATOMS = 1024


class Collinearity(NamedTuple):
    """Cosines over the pairs of different atoms; NaN for a single atom."""

    max: float
    mean: float


class Matching(NamedTuple):
    """m = min(k1, k2) pairs of atoms, in order of ``first``."""

    first: np.ndarray  # (m,) atoms of D1
    second: np.ndarray  # (m,) atoms of D2
    cosine: np.ndarray  # (m,)


def cosines(D1: Tensor, D2: Tensor) -> Tensor:
    """Return ``<D1_i, D2_j> / (||D1_i|| ||D2_j||)`` (k1, k2) in float64, 0 where an atom is zero.

    Raises:
        ValueError: the atoms have different widths, or are not finite.
    """
    if D1.ndim != 2 or D2.ndim != 2 or D1.shape[1] != D2.shape[1]:
        raise ValueError(
            f"dictionaries must be (k, d) with one d, got {tuple(D1.shape)} and {tuple(D2.shape)}"
        )
    unit1, unit2 = (unit_atoms(D.detach().double()) for D in (D1, D2))
    product = unit1 @ unit2.T.to(D1.device)
    if not product.isfinite().all():
        raise ValueError("a dictionary holds NaN or Inf; every number must be finite")
    return product.clamp(-1, 1)


def _similarity(cosine: Tensor, sign_is_free: bool) -> Tensor:
    return cosine.abs() if sign_is_free else cosine


def collinearity(D: Tensor, *, sign_is_free: bool = False) -> Collinearity:
    """Return the largest and the mean cosine of two different atoms: 1 is a repeated direction, 0 orthogonal.

    ``sign_is_free`` as in :func:`match_atoms`.  The cosines are computed in blocks, so that memory is O(k).

    >>> collinearity(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])).max
    1.0
    """
    k = len(D)
    if k < 2:
        return Collinearity(math.nan, math.nan)
    largest, total = -1.0, 0.0
    for start in range(0, k, BLOCK_ATOMS):
        block = _similarity(cosines(D[start : start + BLOCK_ATOMS], D), sign_is_free)
        own = torch.arange(len(block), device=block.device)
        block[own, own + start] = 0.0
        total += float(block.sum())
        block[own, own + start] = -1.0
        largest = max(largest, float(block.max()))
    return Collinearity(largest, total / (k * (k - 1)))


def match_atoms(D1: Tensor, D2: Tensor, *, sign_is_free: bool = False) -> Matching:
    """Return one-to-one pairs of atoms with the least ``sum (1 - cosine)``.

    ``sign_is_free``: take the absolute value of the cosine, because codes and atoms may change sign together.

    Every atom of the smaller dictionary is matched (Kuhn, "The Hungarian method", 1955).

    Raises:
        ValueError: the atoms have different widths, or are not finite.
    """
    cosine = _similarity(cosines(D1, D2), sign_is_free).cpu().numpy()
    first, second = linear_sum_assignment(1 - cosine)
    return Matching(first, second, cosine[first, second])


def hungarian_distance(D1: Tensor, D2: Tensor, *, sign_is_free: bool = False) -> float:
    """Return the mean of ``1 - cosine`` over the pairs of :func:`match_atoms`; norms and order do not matter.

    0: each atom of the smaller dictionary is in the larger one, up to its length.  A zero atom counts 1.

    >>> hungarian_distance(torch.eye(3), 2 * torch.eye(3).flip(0))
    0.0
    """
    return float((1 - match_atoms(D1, D2, sign_is_free=sign_is_free).cosine).mean())


def matched_share(D1: Tensor, D2: Tensor, cosine: float = 0.9, *, sign_is_free: bool = False) -> float:
    """Return the share of the smaller dictionary's atoms whose partner has at least this cosine, in [0, 1].

    For two seeds of one run: the share of concepts that do not depend on the seed.
    """
    real_number("cosine", cosine, 0, exclusive=True)
    return float((match_atoms(D1, D2, sign_is_free=sign_is_free).cosine >= cosine).mean())
