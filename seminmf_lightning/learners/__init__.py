"""Learners: what is remembered of the data, and how the dictionary follows from it."""

from seminmf_lightning.learners.base import Learner, Recipe, make_learner

__all__ = ["Learner", "Recipe", "make_learner"]
