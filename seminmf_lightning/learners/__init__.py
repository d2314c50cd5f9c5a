"""Learners: keep sums over the data and compute the dictionary from them."""

from __future__ import annotations

import warnings

from seminmf_lightning.core.processes import Processes
from seminmf_lightning.learners.base import Learner
from seminmf_lightning.learners.exact import ExactLearner
from seminmf_lightning.learners.ksvd import KSVDLearner
from seminmf_lightning.learners.online import OnlineLearner
from seminmf_lightning.learners.recipe import Recipe
from seminmf_lightning.solvers.ksvd import KSVD

__all__ = ["Learner", "Recipe", "make_learner"]

LEARNERS: dict[str, type[Learner]] = {"second_moment": ExactLearner, "codes": OnlineLearner}
"""Learner for each value of ``statistics`` but ``auto``."""


def make_learner(recipe: Recipe, features: int, processes: Processes | None = None) -> Learner:
    """Return the recipe's learner for rows of ``features`` numbers, shared by ``processes`` if given.

    Raises:
        ValueError: the encoder cannot work with dictionaries of this shape.

    >>> type(make_learner(Recipe(nb_concepts=8, l1_penalty=0.1), features=24)).__name__
    'OnlineLearner'
    """
    recipe.encoder.check(recipe.nb_concepts, features)
    # d atoms and the negative of their sum reach every row with nonnegative codes; d atoms never do.
    one_more = recipe.nonnegative == "codes"
    unpenalised = not recipe.penalised and not recipe.encoder.sparse
    if unpenalised and recipe.nb_concepts >= features + one_more:
        warnings.warn(
            f"nb_concepts={recipe.nb_concepts} is "
            f"{'more' if one_more else 'not less'} than the {features} features: with l1_penalty=0 "
            "such a dictionary fits anything exactly, as the identity does"
            f"{' with one atom more' if one_more else ''}; lower nb_concepts or set l1_penalty",
            stacklevel=2,
        )
    if isinstance(recipe.solver, KSVD):
        return KSVDLearner(recipe, features, processes)
    statistics = recipe.statistics_for(features)
    if recipe.solver.shares_atoms and statistics != "codes":
        raise ValueError(
            f"solver.shard=atoms shares out sums over codes, and statistics={statistics} has "
            "none: leave solver.shard out, set l1_penalty, or ask for statistics=codes"
        )
    return LEARNERS[statistics](recipe, features, processes)
