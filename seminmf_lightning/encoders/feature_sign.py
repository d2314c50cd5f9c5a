"""Exact lasso codes for the rows on which iterations crawl: one atom in or out of the support a step, all
rows at once.

Lee, Battle, Raina & Ng, "Efficient sparse coding algorithms", NIPS 2007 (feature-sign search), with the line
search cut at the first code that reaches zero: each step lowers the objective, so that no support comes twice
and the search ends.

Legend:  Z (n, k) codes   E (n, k) their signs, 0 off the support   D (k, d) dictionary   Q = A D^T (n, k)   G
= D D^T (k, k)
"""

from __future__ import annotations

import torch
from torch import Tensor

from seminmf_lightning.encoders.active_set import solve_with_signs

ACCURACY = 1e-9  # relative to the penalty: of the optimality conditions


def feature_sign(Z: Tensor, Q: Tensor, D: Tensor, G: Tensor | None, penalty: float, steps: int) -> Tensor:
    """Codes after at most ``steps`` steps from Z, of an objective no higher."""
    out = Z.double()
    Q, atoms = Q.double(), D.double()
    open_rows = torch.arange(Z.shape[0], device=Z.device)
    Z, E = out.clone(), out.sign()
    settled = torch.zeros(len(Z), dtype=torch.bool, device=Z.device)  # whether Z is optimal on its support
    for _ in range(steps):
        correlation = Q - (Z @ atoms) @ atoms.T if G is None else Q - Z @ G
        strongest = torch.where(E == 0, correlation.abs(), 0.0).max(dim=1)
        done = settled & (strongest.values <= penalty * (1 + ACCURACY))
        if done.any():
            out[open_rows[done]] = Z[done]
            keep = ~done
            if not keep.any():
                return out.to(D)
            open_rows, Z, E, Q, settled, correlation = (
                x[keep] for x in (open_rows, Z, E, Q, settled, correlation)
            )
            strongest = type(strongest)((strongest.values[keep], strongest.indices[keep]))
        entering = settled.nonzero()[:, 0]
        newest = strongest.indices[entering]
        E[entering, newest] = correlation[entering, newest].sign()
        wanted = solve_with_signs(E, Q, D, G, penalty)
        # The first code on the way to `wanted` whose sign would change; one that just came in has not got any
        # yet.
        changing = (E != 0) & (wanted * E < 0)
        share = torch.where(changing, Z / (Z - wanted), 1.0).nan_to_num(nan=0.0).clamp(0, 1)
        step, leaving = share.min(dim=1)
        Z = Z + step[:, None] * (wanted - Z)
        cut = (step < 1) | changing.any(dim=1)
        rows = cut.nonzero()[:, 0]
        Z[rows, leaving[rows]], E[rows, leaving[rows]] = 0.0, 0.0
        settled = ~cut
    out[open_rows] = Z
    return out.to(D)
