"""Which atoms earn their place, and better directions for those that do not.

Legend:  D (k, d) unit atoms   R (n, d) residuals of least-squares codes
"""

from __future__ import annotations

import torch
from torch import Tensor

from seminmf_lightning.core.constraints import Constraint
from seminmf_lightning.core.linalg import into_unit_ball, unit_atoms

STEPS = 2
"""Means over the rows that share a direction; planted atoms need no more."""
SHARED = 0.45
"""Cosine of a residual with a direction above which the row counts."""
BLOCK_ATOMS = 1024


def weaker_duplicates(D: Tensor, strength: Tensor, cosine: float, *, sign_is_free: bool) -> Tensor:
    """Return a mask (k,) of atoms that have a stronger one beside them, at more than ``cosine``.

    Of equal strength the first one stays.

    >>> D = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> weaker_duplicates(D, torch.tensor([1.0, 2.0, 1.0]), 0.9, sign_is_free=False).tolist()
    [True, False, False]
    """
    order = torch.sort(strength, descending=True, stable=True).indices
    U = D[order].double()
    repeated = torch.zeros(len(D), dtype=torch.bool, device=D.device)
    for start in range(0, len(U), BLOCK_ATOMS):
        similar = U[start : start + BLOCK_ATOMS] @ U.T
        similar = (similar.abs() if sign_is_free else similar) > cosine
        repeated[order[start : start + BLOCK_ATOMS]] = similar.tril(start - 1).any(dim=1)
    return repeated


def new_directions(R: Tensor, count: int, penalty: float, constraint: Constraint) -> Tensor:
    """Return up to ``count`` unit atoms (m, d), each in the direction that many residuals share.

    From the worst row on: the mean of the rows that a direction explains by more than the penalty and a good
    part, a few times; then these rows lose it.  Float64, so that every process finds the same.

    >>> from seminmf_lightning.core.constraints import CONSTRAINTS
    >>> R = torch.tensor([[0.0, 3.0], [0.0, 1.0], [2.0, 0.0]])
    >>> new_directions(R, 2, 0.1, CONSTRAINTS["codes"])
    tensor([[0., 1.],
            [1., 0.]])
    """
    R = R.double().clone()
    error, found = R.square().sum(dim=1), list[Tensor]()
    for _ in range(count):
        worst = int(error.argmax())
        if error[worst] <= 1e-6 * R.shape[1] * torch.finfo(torch.float32).eps or len(found) == len(R):
            break
        atom = unit_atoms(constraint.directions(R[worst : worst + 1]))[0]
        for _ in range(STEPS):
            shares = _shares(R, error, atom, penalty, constraint)
            shares[worst] = torch.where(shares[worst] == 0, R[worst] @ atom, shares[worst])
            mean = constraint.project_atoms((shares @ R)[None], bounded=False)
            atom = unit_atoms(mean)[0] if mean.any() else atom
        shares = _shares(R, error, atom, penalty, constraint)
        hit = shares.nonzero()[:, 0]
        R[hit] -= shares[hit, None] * atom
        error[hit] = R[hit].square().sum(dim=1)
        error[worst] = 0.0
        found.append(atom)
    return torch.stack(found).float() if found else R.new_zeros(0, R.shape[1]).float()


def drawn_directions(R: Tensor, count: int, constraint: Constraint, seed: int) -> Tensor:
    """Return the directions (m, d), of length 1 at most, of up to ``count`` rows drawn by squared residual.

    Rows are drawn on the CPU from the seed, so that every process makes the same choice.
    """
    directions = constraint.directions(R)
    error = torch.where((directions != 0).any(dim=1), R.square().sum(dim=1), 0.0).double().cpu()
    count = min(count, int((error > 0).sum()))
    if not count:
        return R[:0]
    chosen = torch.multinomial(error, count, generator=torch.Generator().manual_seed(seed)).to(R.device)
    return into_unit_ball(unit_atoms(directions[chosen]))


def _shares(R: Tensor, error: Tensor, atom: Tensor, penalty: float, constraint: Constraint) -> Tensor:
    """Return the codes (n,) of residuals for one atom, 0 where it explains little."""
    codes = R @ atom
    size = codes if constraint.nonnegative_codes else codes.abs()
    return torch.where((size > penalty) & (size > SHARED * error.sqrt()), codes, 0.0)
