"""Lasso path: the exact lasso codes of all rows as the penalty falls, until a row has enough nonzeros.

Osborne, Presnell & Turlach, "A new approach to variable selection in least squares problems", IMA J. Numer.
Anal. 20, 2000; Efron, Hastie, Johnstone & Tibshirani, "Least angle regression", 2004, section 3.1.  Codes are
linear in the penalty between events, at which one atom enters the support or leaves it.

Legend:  Q = A U^T (n, k)   U unit atoms (k, d)   G = U U^T (k, k)   c = q - z G (n, k), correlations
         y growth of codes as the penalty falls   r = y G, fall of correlations   m nonzeros of a row so far
"""

from __future__ import annotations

import torch
from torch import Tensor

from seminmf_lightning.encoders.active_set import systems

EVENTS_PER_ATOM = 4
"""Most events per atom of the dictionary; a path ends there, at the lasso codes reached."""
RIDGE = 1e-13
"""Share of the diagonal that is added to it, so that dependent atoms have a factor, in which they show."""


def lasso_path(
    Q: Tensor, U: Tensor, G: Tensor | None, smallest: Tensor, longest: int, *, dependent: float,
    nonnegative: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return atoms and codes (n, longest) at the penalty below which a row has more; 0 where it has fewer.

    Args:
        Q, U, G: in float64; G is None where it would be too large.
        smallest: penalty (n,) at which a path ends because it is rounding.
        dependent: an atom whose new part, squared, is at most this is a sum of those present and stays out.

    >>> Q, U = torch.tensor([[3.0, 2.0, 1.0]]).double(), torch.eye(3).double()
    >>> atoms, codes = lasso_path(Q, U, None, torch.zeros(1), longest=2, dependent=1e-12)
    >>> atoms.tolist(), codes.round(decimals=6).tolist()
    ([[0, 1]], [[2.0, 1.0]])
    """
    n, k = Q.shape
    out_atoms = torch.zeros(n, longest, dtype=torch.long, device=Q.device)
    out_codes = Q.new_zeros(n, longest)
    rows, slots = torch.arange(n, device=Q.device), torch.arange(longest, device=Q.device)
    atoms, codes, signs, live = out_atoms.clone(), out_codes.clone(), out_codes.clone(), out_atoms.bool()
    c, may_enter, smallest = Q.clone(), torch.ones_like(Q), smallest.to(Q)
    penalty, entering = (c if nonnegative else c.abs()).max(dim=1)
    ended = torch.zeros_like(rows, dtype=torch.bool)
    for _ in range(EVENTS_PER_ATOM * k):
        count = live.sum(dim=1)
        ended |= (penalty <= smallest) | ((entering >= 0) & (count == longest))
        if ended.any():
            out_atoms[rows[ended]], out_codes[rows[ended]] = atoms[ended], (codes * live)[ended]
            state = (rows, atoms, codes, signs, live, c, may_enter, smallest, penalty, entering, count)
            rows, atoms, codes, signs, live, c, may_enter, smallest, penalty, entering, count = (
                x[~ended] for x in state
            )
            if not len(rows):
                return out_atoms, out_codes
        # Atoms in the order in which they entered; the new one behind them.
        order = (~live).byte().argsort(dim=1, stable=True)
        atoms, codes, signs = (x.gather(1, order) for x in (atoms, codes, signs))
        new = (entering >= 0).nonzero()[:, 0]
        at, atom = count[new], entering[new]
        atoms[new, at], codes[new, at], signs[new, at] = atom, 0.0, c[new, atom].sign()
        may_enter[new, atom] = 0.0
        count[new] += 1
        live = slots < count[:, None]
        width = max(1, int(count.max()))
        factor = _factor(systems(atoms[:, :width], U, G), live[:, :width])
        sums = new[factor[new, at, at].square() <= dependent]
        last = count[sums] - 1
        live[sums, last], factor[sums, last], factor[sums, last, last] = False, 0.0, 1.0
        y = torch.cholesky_solve((signs * live)[:, :width, None], factor)[:, :, 0]
        growth = torch.zeros_like(codes)
        growth[:, :width] = torch.where(live[:, :width], y, 0.0)
        dense = torch.zeros_like(c).scatter_add_(1, atoms, growth)
        r = (dense @ U) @ U.T if G is None else dense @ G
        # The next event: a correlation meets the falling penalty, or a code reaches zero.
        level, rounding = penalty[:, None], (penalty * torch.finfo(c.dtype).eps)[:, None]
        rate = (1 - r) / torch.maximum(level - c, rounding)
        if not nonnegative:
            rate = torch.maximum(rate, (1 + r) / torch.maximum(level + c, rounding))
        fastest, entering = (rate * may_enter).max(dim=1)
        enters = fastest * penalty > 1
        step = torch.where(enters, 1 / fastest, penalty)
        times = torch.where(growth * signs < 0, -codes / growth, torch.inf)
        first, leaving = times.min(dim=1)
        leaves = first <= step
        step = torch.where(leaves, first, step)
        codes = codes + step[:, None] * growth
        c = c - step[:, None] * r
        penalty = penalty - step
        # An atom that leaves as it enters came in by rounding alone, and stays out.
        back = (leaves & ((leaving < live.sum(dim=1) - 1) | (step > 0))).nonzero()[:, 0]
        may_enter[back, atoms[back, leaving[back]]] = 1.0
        live[leaves.nonzero()[:, 0], leaving[leaves]] = False
        entering = torch.where(enters & ~leaves, entering, -1)
        ended = ~(enters | leaves)
    out_atoms[rows], out_codes[rows] = atoms, codes * live
    return out_atoms, out_codes


def _factor(system: Tensor, live: Tensor) -> Tensor:
    """Return the Cholesky factors of the systems over the live entries; 1 on the diagonal of the others."""
    matrix = torch.where(live[:, :, None] & live[:, None, :], system, 0.0)
    matrix.diagonal(dim1=1, dim2=2).mul_(1 + RIDGE).add_((~live).double())
    factor: Tensor = torch.linalg.cholesky_ex(matrix).L
    return factor
