"""A few coarse atoms first, the others on what these leave: keeps a general concept apart from special ones.

Where a special feature fires only beside a general one, a sparse dictionary pays less for their sum as one
atom than for two, so that better optimisation merges them ("absorption": Chanin et al., "A is for
absorption", 2024).  Few atoms can only be general; what they explain is no longer there to be merged.
Matryoshka autoencoders (Bussmann et al., "Learning multi-level features with Matryoshka SAEs", 2025) do the
same by a loss over nested prefixes, at once; here the second part begins when the first is done.

Legend:  A (n, d) normalised rows   D (k, d) unit atoms, of which D[:coarse] come first
"""

from __future__ import annotations

import torch
from torch import Tensor

from seminmf_lightning.core.constraints import Constraint
from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.encoders.threshold import Threshold

UNTIL = 0.25
"""Part of training in which the coarse atoms learn alone."""


def left_over(A: Tensor, D: Tensor, nonzeros: int, constraint: Constraint) -> Tensor:
    """Return ``A - Z D`` (n, d) for coarse atoms D (c, d), with least-squares codes of ``nonzeros`` of them.

    >>> from seminmf_lightning.core.constraints import CONSTRAINTS
    >>> left_over(torch.tensor([[3.0, 1.0], [-2.0, 1.0]]), torch.eye(2)[:1], 1, CONSTRAINTS["codes"])
    tensor([[ 0.,  1.],
            [-2.,  1.]])
    """
    encoder = Threshold(nonzeros=min(nonzeros, *D.shape), nonnegative=constraint.nonnegative_codes)
    # In float64: float32 products depend on the shape of the batch, and rows must not.
    return (A.double() - encoder.precise(D)(A).double() @ D.double()).to(A)


def only(D: Tensor, atoms: slice) -> Tensor:
    """Return D with all other atoms 0, so that they get no codes."""
    masked = torch.zeros_like(D)
    masked[atoms] = D[atoms]
    return masked


def first_fine_atoms(D: Tensor, coarse: int, left: Tensor, seed: int, constraint: Constraint) -> Tensor:
    """Return D with the atoms after the coarse ones in the directions of random rows of ``left`` (n, d)."""
    directions = unit_atoms(constraint.directions(left))
    directions = directions[(directions != 0).any(dim=1)]
    chosen = torch.randperm(len(directions), generator=torch.Generator().manual_seed(seed))
    chosen = chosen[: len(D) - coarse].to(D.device)
    D = D.clone()
    D[coarse : coarse + len(chosen)] = directions[chosen].to(D)
    return D
