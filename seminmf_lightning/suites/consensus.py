"""Refit the atoms that recur over seeds, and measure what keeping only those gains.

Legend:  A (n, d) rows   Z (n, k) codes   D (k, d) dictionary
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from seminmf_lightning.core.consensus import consensus
from seminmf_lightning.core.discovery import build, default_for
from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.core.recovery import explained_variance
from seminmf_lightning.core.sparse_codes import SparseCodes
from seminmf_lightning.core.stability import Stability, stability_of
from seminmf_lightning.core.sums import CodeStatistics
from seminmf_lightning.dictionary_file import SavedDictionary
from seminmf_lightning.learners import Recipe
from seminmf_lightning.solvers import StatisticsSolver
from seminmf_lightning.suites.nonzeros import with_nonzeros

BLOCK_ROWS = 8192
TUNING_ROWS = 1024
HALVES = 4
"""Seeds from which on two halves of them have a consensus each."""


def recipe_for(saved: SavedDictionary, atoms: int) -> Recipe:
    """Return the recipe of a dictionary for another number of atoms."""
    return Recipe(**saved.settings | {"nb_concepts": atoms})


def refitted(D: Tensor, rows: Tensor, recipe: Recipe) -> Tensor:
    """Return unit atoms (c, d) after one pass over normalised rows (n, d) and one step of the solver.

    An atom that no row uses stays as it is.
    """
    D = D.to(rows)
    encode, sums = recipe.encoder.precise(D), CodeStatistics.empty(len(D), D.shape[1], D.device)
    for block in rows.split(BLOCK_ROWS):
        sums.add_rows_(block, SparseCodes.of(encode(block)), D)
    S, P = ((part / sums.rows).to(D) for part in (sums.gram, sums.cross))
    # A solver that works on rows leaves the one step to that of bounded atoms.
    own = isinstance(recipe.solver, StatisticsSolver)
    solver = recipe.solver if own else build(StatisticsSolver, default_for(StatisticsSolver, "bounded"))
    stepped = solver.step(D, S, P, constraint=recipe.constraint, bounded=recipe.bounded)
    kept = (sums.fired > 0) & (stepped.norm(dim=1) > 0)
    return recipe.constraint.project_atoms(torch.where(kept[:, None], unit_atoms(stepped), D), recipe.bounded)


def most_used(saved: SavedDictionary, rows: Tensor, count: int) -> Tensor:
    """Return the ``count`` atoms that explain most: of largest ``sum z^2 ||D_j||^2`` over normalised rows."""
    D = saved.D.to(rows)
    Z = recipe_for(saved, len(D)).encoder.precise(D, saved.effort)(rows)
    energy = Z.square().sum(dim=0) * D.square().sum(dim=1)
    return unit_atoms(D[energy.topk(count).indices])


def gain(
    runs: Sequence[SavedDictionary], atoms: Mapping[str, Tensor], held_out: Tensor
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield r2 and l0 on normalised held-out rows, for the runs (their mean) and each of ``atoms``.

    All at the mean nonzeros per row that the runs' own codes have, where the encoder can be brought to them.
    """
    target = sum(_l0(saved, held_out) for saved in runs) / len(runs)
    every = [_at(saved, saved.D.to(held_out), held_out, target) for saved in runs]
    yield "runs, mean", {key: sum(one[key] for one in every) / len(every) for key in every[0]}
    for name, D in atoms.items():
        yield name, _at(runs[0], D.to(held_out), held_out, target)


def _l0(saved: SavedDictionary, rows: Tensor) -> float:
    encoder = recipe_for(saved, len(saved.D)).encoder
    return float((encoder.precise(saved.D.to(rows), saved.effort)(rows) != 0).sum()) / len(rows)


def _at(saved: SavedDictionary, D: Tensor, rows: Tensor, target: float) -> dict[str, float]:
    encoder = with_nonzeros(recipe_for(saved, len(D)).encoder, D, rows[:TUNING_ROWS], target)
    Z = encoder.precise(D)(rows)
    return {"atoms": len(D), "r2": explained_variance(rows, Z @ D), "l0": float((Z != 0).sum()) / len(rows)}


def halves(dictionaries: Sequence[Tensor], sign_is_free: bool, cosine: float) -> Stability | None:
    """Return how well the consensus of one half of the seeds agrees with that of the other.

    None for fewer than :data:`HALVES` seeds.
    """
    if len(dictionaries) < HALVES:
        return None
    both = [
        consensus(half, sign_is_free=sign_is_free, cosine=cosine).D
        for half in (dictionaries[::2], dictionaries[1::2])
    ]
    return stability_of(both, sign_is_free=sign_is_free, centered=True)
