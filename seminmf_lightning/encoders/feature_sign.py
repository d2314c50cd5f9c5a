"""Feature-sign search: exact lasso codes, one atom in or out of the support per step, for all rows at once.

Lee, Battle, Raina & Ng, "Efficient sparse coding algorithms", NIPS 2007.  Deviation: the line search stops at
the first code that reaches zero.  Each step lowers the objective, so no support comes twice and the search
ends.

Legend:  Z (n, k) codes   E (n, k) their signs, 0 off the support   D (k, d) dictionary   Q = A D^T (n, k)
         G = D D^T (k, k)
"""

from __future__ import annotations

import torch
from torch import Tensor

from seminmf_lightning.encoders.active_set import solve_with_signs, squared_distances

DEPENDENT = 64.0
"""In units of rounding: squared distances from the span of the support below this are zero."""
ACCURACY = 1e-9
"""Slack of the optimality conditions, relative to the penalty."""


def feature_sign(
    Z: Tensor, Q: Tensor, D: Tensor, G: Tensor | None, penalty: float, steps: int, *,
    nonnegative: bool = False, slack: Tensor | float = 0.0, most: int | None = None,
    by_error: bool = False,
) -> Tensor:  # fmt: skip
    """Return codes after at most ``steps`` steps from Z; their objective is no higher.

    Args:
        nonnegative: only codes above 0 enter.  With ``penalty = 0`` that is the method of Lawson & Hanson,
            "Solving Least Squares Problems", 1974, chapter 23.
        slack: correlation (n,) beyond the penalty that counts as rounding.
        most: nonzeros at which a row is finished, which makes nonnegative least squares a matching pursuit:
            Bruckstein, Elad & Zibulevsky, IEEE Trans. Inf. Theory 54(11), 2008.
        by_error: for nonnegative least squares, take in the atom that lowers the error most, else the one of
            largest correlation.

    >>> D = torch.eye(2)
    >>> feature_sign(torch.zeros(1, 2), torch.tensor([[0.5, 0.05]]), D, None, penalty=0.1, steps=5)
    tensor([[0.4000, 0.0000]])
    """
    out = Z.double()
    Q, atoms = Q.double(), D.double()
    open_rows = torch.arange(Z.shape[0], device=Z.device)
    Z, E = out.clone(), out.sign()
    optimal = torch.zeros(len(Z), dtype=torch.bool, device=Z.device)  # whether Z is optimal on its support
    limit = (penalty * (1 + ACCURACY) + torch.as_tensor(slack, dtype=Z.dtype, device=Z.device)).expand(len(Z))
    for _ in range(steps):
        correlation = Q - (Z @ atoms) @ atoms.T if G is None else Q - Z @ G
        entry = correlation if nonnegative else correlation.abs()
        strength, strongest = torch.where(E == 0, entry, 0.0).max(dim=1)
        done = optimal & (strength <= limit)
        if most is not None:
            done |= optimal & ((E != 0).sum(dim=1) >= most)
        if done.any():
            out[open_rows[done]] = Z[done]
            if done.all():
                return out.to(D)
            open_rows, Z, E, Q, optimal, correlation, strongest, limit = (
                x[~done] for x in (open_rows, Z, E, Q, optimal, correlation, strongest, limit)
            )
        # Rows that are optimal on their support take in the most correlated atom.
        entering = optimal.nonzero()[:, 0]
        newest = strongest[entering]
        if by_error and len(entering):
            candidates = (E == 0) & (correlation > limit[:, None])
            gain = torch.where(candidates, correlation, 0.0)[entering].square()
            floor = DEPENDENT * torch.finfo(gain.dtype).eps
            newest = (gain / squared_distances(E[entering], D, G).clamp(min=floor)).argmax(dim=1)
        E[entering, newest] = correlation[entering, newest].sign()
        target = solve_with_signs(E, Q, D, G, penalty)
        # Go to `target`, or to the first code on the way whose sign would change; a new code has no sign yet.
        changing = (E != 0) & (target * E < 0)
        share = torch.where(changing, Z / (Z - target), 1.0).nan_to_num(nan=0.0).clamp(0, 1)
        step, leaving = share.min(dim=1)
        Z = Z + step[:, None] * (target - Z)
        cut = (step < 1) | changing.any(dim=1)
        rows = cut.nonzero()[:, 0]
        Z[rows, leaving[rows]], E[rows, leaving[rows]] = 0.0, 0.0
        optimal = ~cut
    out[open_rows] = Z
    return out.to(D)
