"""The objective of a dictionary step, and how far from stationary a dictionary is.

Legend:  D (k, d)   S = Z^T Z (k, k)   P = Z^T A (k, d)
"""

from __future__ import annotations

import torch
from torch import Tensor

from seminmf_lightning.core.constraints import Constraint


def quadratic(D: Tensor, S: Tensor, P: Tensor) -> Tensor:
    """Return ``1/2 <D, S D> - <P, D>``: the objective as a function of D at fixed codes, up to a constant."""
    return 0.5 * (D * (S @ D)).sum() - (P * D).sum()


def kkt_residual(D: Tensor, S: Tensor, P: Tensor, constraint: Constraint, *, bounded: bool) -> float:
    """Return ``||D - proj(D - (S D - P) / L)|| / ||D||``, L = ||S||_F: zero exactly at a stationary D."""
    lipschitz = S.norm().clamp(min=torch.finfo(S.dtype).tiny)
    moved = constraint.project_atoms(D - (S @ D - P) / lipschitz, bounded)
    return float((D - moved).norm() / D.norm().clamp(min=torch.finfo(D.dtype).tiny))
