"""Train a learner on rows that are read again in each epoch, without Lightning.

Legend:  A (n, d) activations   D (k, d) dictionary
"""

from __future__ import annotations

import torch
from torch import Tensor

from seminmf_lightning.core.rows import RowsInMemory, RowsOfLoader
from seminmf_lightning.learners.base import Learner

BLOCK_ROWS = 8_192

Rows = RowsInMemory | RowsOfLoader


def learn_exact(
    learner: Learner, D: Tensor, rows: Rows, max_iter: int, verbose: bool = False
) -> tuple[Tensor, int]:
    """Sum the second moment in one epoch, then let the solver run on it; return D and the steps made."""
    try:
        for block in rows.blocks(BLOCK_ROWS):
            learner.observe(block, D)
            learner.absorb()
    except FloatingPointError:
        rows.require_finite()  # NaN and Inf propagate into the sums; finite rows may overflow there
        raise
    D = learner.end_epoch(D)
    for step in range(max_iter):
        if learner.converged():
            return D, step
        D = learner.improve(D)
        if verbose and (step + 1) % 10 == 0:
            gap = learner.optimality_gap(D)
            loss = f"loss {learner.mean_squared_error(D):.6g}"
            print(f"step {step + 1}: {loss}" + ("" if gap is None else f", optimality gap {gap:.3g}"))
    return D, max_iter


def learn_online(
    learner: Learner, D: Tensor, rows: Rows, max_iter: int, verbose: bool = False
) -> tuple[Tensor, int]:
    """Encode batch after batch, with an update of D after each, until an epoch no longer helps; return D and
    the epochs made."""
    rows.require_finite()  # before a long epoch rather than in it
    order = torch.Generator().manual_seed(learner.recipe.seed)
    for epoch in range(max_iter):
        if learner.converged():
            return D, epoch
        for block in rows.blocks(learner.update_rows or BLOCK_ROWS, shuffle=order):
            learner.observe(block, D)
            D = learner.updated(D) if learner.due() else D
        D = learner.end_epoch(learner.updated(D))
        if verbose:
            print(f"epoch {epoch + 1}: loss {learner.mean_squared_error(D):.6g}")
    return D, max_iter
