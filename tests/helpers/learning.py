"""Train a learner on rows in memory, as the estimator does."""

from __future__ import annotations

import torch

from seminmf_lightning.learners import Learner, Recipe, make_learner


def learn(A: torch.Tensor, steps: int = 100, **recipe: object) -> tuple[Learner, torch.Tensor]:
    learner = make_learner(Recipe(**recipe), A.shape[1])  # type: ignore[arg-type]
    D = learner.initialise(A)
    for _ in range(1 if learner.single_epoch else 10):
        for rows in A.split(128):
            learner.observe(rows, D)
            learner.absorb()
            D = learner.improve(D)
        D = learner.end_epoch(D)
    for _ in range(steps if learner.single_epoch else 0):
        D = learner.improve(D)
    return learner, D
