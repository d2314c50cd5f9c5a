"""Hierarchical alternating least squares: exact minimisation over one atom after the other.

Cichocki & Phan, "Fast local algorithms for large scale nonnegative matrix and tensor factorizations", IEICE E92-A, 2009;
for semi-NMF Gillis & Kumar, SIAM J. Matrix Anal. Appl. 36(4), 2015, section 2.2; with unit atoms it is the dictionary
update of Mairal et al., JMLR 11, 2010, Algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seminmf_lightning.checks import whole_number
from seminmf_lightning.linalg import project_atoms
from seminmf_lightning.solvers.base import Solver


@dataclass(frozen=True, kw_only=True)
class HALS(Solver):
    """For j = 1..k: ``D_j <- proj(D_j + (P_j - S_j D) / S_jj)``, the exact minimiser over atom j."""

    sweeps: int = 1
    """Passes over the atoms a step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("solver.sweeps", self.sweeps, 1)

    def step(self, D: Tensor, S: Tensor, P: Tensor, *, bounded: bool) -> Tensor:
        D = D.clone()
        curvature = S.diagonal().tolist()
        floor = max(curvature) * torch.finfo(S.dtype).eps
        used = [j for j, value in enumerate(curvature) if value > floor]  # an atom without codes has no say
        for _ in range(self.sweeps):
            for j in used:
                gradient = torch.addmv(P[j], D.T, S[j], alpha=-1)
                D[j] = project_atoms(torch.add(D[j], gradient, alpha=1 / curvature[j])[None], bounded)[0]
        return D
