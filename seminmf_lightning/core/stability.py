"""Do several seeds find the same atoms, beyond what chance and a common offset make alike?

Legend:  D (k, d) dictionary
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.core.similarity import match_atoms

NULL_DRAWS = 3
"""Shuffles per pair of dictionaries: a mean over k atoms varies little from one to the next."""
RECURS = 0.9
"""Cosine from which on two atoms count as the same."""


class Stability(NamedTuple):
    """Means over all pairs of dictionaries."""

    cosine: float
    """Mean cosine of matched atoms."""
    share: float
    """Share of atoms whose partner has a cosine of at least :data:`RECURS`."""
    null_cosine: float
    """The same as ``cosine`` against shuffled atoms, as in :func:`shuffled`."""
    null_share: float
    seeds: int

    @property
    def above_null(self) -> float:
        """``cosine - null_cosine``: 0 for dictionaries that agree by chance alone."""
        return self.cosine - self.null_cosine


def stability_of(
    dictionaries: Sequence[Tensor], *, sign_is_free: bool = False, centered: bool = False, seed: int = 0
) -> Stability:
    """Return how well the atoms of several seeds agree, and how well shuffled ones do.

    Pairs of dictionaries are matched one to one.  Atoms of one sign, or with a few large features in common,
    agree without any learning; hence the null.  ``centered`` first subtracts each dictionary's mean atom, as
    :func:`without_mean_atom` does.

    Raises:
        ValueError: fewer than two dictionaries, or of different widths.

    >>> found = stability_of([torch.eye(4), torch.eye(4).flip(0)])
    >>> found.cosine, found.share, found.null_cosine < 1
    (1.0, 1.0, True)
    """
    if len(dictionaries) < 2:
        raise ValueError(f"stability compares two or more dictionaries, got {len(dictionaries)}")
    if centered:
        dictionaries = [without_mean_atom(D, sign_is_free) for D in dictionaries]
    generator = torch.Generator().manual_seed(seed)
    pairs, null = [], []
    for one, other in combinations(dictionaries, 2):
        pairs.append(_agreement(one, other, sign_is_free))
        null += [_agreement(one, shuffled(other, generator), sign_is_free) for _ in range(NULL_DRAWS)]
    (cosine, share), (null_cosine, null_share) = np.mean(pairs, axis=0), np.mean(null, axis=0)
    return Stability(float(cosine), float(share), float(null_cosine), float(null_share), len(dictionaries))


def _agreement(one: Tensor, other: Tensor, sign_is_free: bool) -> tuple[float, float]:
    """Return mean matched cosine and share of at least :data:`RECURS`."""
    cosine = match_atoms(one, other, sign_is_free=sign_is_free).cosine
    return float(cosine.mean()), float((cosine >= RECURS).mean())


def shuffled(D: Tensor, generator: torch.Generator) -> Tensor:
    """Return atoms whose entries are permuted over the features, each atom by itself.

    Lengths, signs and the distribution of each atom's entries stay; what it points at is lost.
    """
    order = torch.rand(D.shape, generator=generator).argsort(dim=1)
    return D.cpu().gather(1, order)


def without_mean_atom(D: Tensor, sign_is_free: bool = False) -> Tensor:
    """Return unit atoms less their mean; zero atoms stay zero, so that they agree with nothing.

    Where signs are free the atoms stay as they are: the mean of lines depends on the signs chosen for them.

    >>> without_mean_atom(torch.eye(2)).tolist()
    [[0.5, -0.5], [-0.5, 0.5]]
    """
    unit = unit_atoms(D.detach().double())
    used = unit.any(dim=1)
    if not sign_is_free and used.any():
        unit[used] -= unit[used].mean(dim=0)
    return unit
