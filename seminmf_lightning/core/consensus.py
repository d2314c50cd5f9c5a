"""Merge the dictionaries of several seeds into the atoms that recur.

Legend:  D (k, d) dictionary
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.core.similarity import match_atoms
from seminmf_lightning.core.stability import RECURS


class Consensus(NamedTuple):
    """Atoms that recur over seeds."""

    D: Tensor  # (c, d) float64, unit atoms, those of most seeds first
    seeds: Tensor  # (c,) number of dictionaries that hold each


def consensus(
    dictionaries: Sequence[Tensor], *, sign_is_free: bool = False, cosine: float = RECURS
) -> Consensus:
    """Return the mean directions of atoms that at least half of the dictionaries hold, two at the least.

    Dictionaries are matched one to one, pair by pair.  An atom not yet used collects its unused
    partners of at least ``cosine``; atoms with most partners come first.  A group's direction is the mean of
    its unit atoms, which keeps their signs where these are fixed, and takes the first atom's where they are
    free.  At most as many atoms as the largest dictionary has are kept, those of most seeds.

    Raises:
        ValueError: fewer than two dictionaries, of different widths, or no atom recurs.

    >>> first, second, third = torch.eye(4)[:2], torch.eye(4)[[1, 0]], torch.eye(4)[[2, 0]]
    >>> found = consensus([first, second, third])
    >>> found.D.tolist(), found.seeds.tolist()
    ([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]], [3, 2])
    """
    count = len(dictionaries)
    if count < 2:
        raise ValueError(f"a consensus needs two or more dictionaries, got {count}")
    units = [unit_atoms(D.detach().cpu().double()) for D in dictionaries]
    partner = [np.full((len(D), count), -1) for D in units]  # atom of each dictionary in each other one
    for (i, one), (j, other) in combinations(enumerate(units), 2):
        pairs = match_atoms(one, other, sign_is_free=sign_is_free)
        same = pairs.cosine >= cosine
        partner[i][pairs.first[same], j] = pairs.second[same]
        partner[j][pairs.second[same], i] = pairs.first[same]
    groups = [
        (i, atom, *others) for i, D in enumerate(units) for atom, others in enumerate(partner[i].tolist())
    ]
    groups.sort(key=lambda group: sum(other < 0 for other in group))  # the most partners first
    least = max(2, math.ceil(count / 2))
    used: set[tuple[int, int]] = set()
    atoms, seeds = [], []
    for i, atom, *others in groups:
        found = [(j, other) for j, other in enumerate(others) if other >= 0]
        members = [member for member in [(i, atom), *found] if member not in used]
        if len(members) < least or (i, atom) in used:
            continue
        used.update(members)
        rows = torch.stack([units[j][other] for j, other in members])
        if sign_is_free:
            rows = rows * torch.where(rows @ rows[0] < 0, -1.0, 1.0)[:, None]
        atoms.append(rows.mean(dim=0))
        seeds.append(len(members))
    if not atoms:
        raise ValueError(
            f"no atom recurs in {least} of {count} dictionaries at a cosine of {cosine:g}: train longer, "
            "with fewer concepts or a larger penalty, or lower the cosine"
        )
    order = np.argsort(-np.array(seeds), kind="stable")[: max(map(len, units))].tolist()
    return Consensus(unit_atoms(torch.stack(atoms)[order]), torch.tensor(seeds)[order])
