"""Exact codes on given supports: many small positive definite systems at once.

On the support s of a row, with signs e, the lasso is ``G_ss z = q_s - l1_penalty e``; least squares is the
same with l1_penalty = 0.  Float64, so that the codes of a row do not depend on the other rows of its batch.

Legend:  Z (n, k) codes   D (k, d) dictionary   Q = A D^T (n, k)   G = D D^T (k, k)   m = most nonzeros of a
row
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS_AT_ONCE = 256
"""Rows solved at once, sorted by their nonzeros, so that small systems are not padded to the size of large
ones."""
LARGEST_SUPPORT = 128
"""Rows with more nonzeros keep their codes: a solve would cost more than the iterations it saves."""
GRAM_ROWS, STRIPS = 1024, 4
"""Rows of a Gram matrix that are computed at once: at most the first, in at least the second many parts."""
RIDGE = 1e-10
"""Share of the diagonal that is added to it, for (nearly) equal atoms."""
WORK_OF_SQUARE, WORK_OF_CUBE = 4000.0, 16.0
"""Cost of a solve for m nonzeros per m^2 and per m^3, in operations of a large matrix product; measured on
two CPU cores.  It decides how long to iterate before the solve, never the codes."""


def support_work(Z: Tensor) -> float:
    """Return the mean cost per row of :func:`solve_on_support` for the supports of Z, in operations of a
    large matrix product."""
    counts = (Z != 0).sum(dim=1).clamp(max=LARGEST_SUPPORT).double()
    return float((WORK_OF_SQUARE * counts.square() + WORK_OF_CUBE * counts**3).mean())


def gram(D: Tensor) -> Tensor | None:
    """Return ``D D^T`` in float64, or None if k > 2 d: it would be larger than D, so it is formed support by
    support."""
    return D.double() @ D.double().T if D.shape[0] <= 2 * D.shape[1] else None


def rounded_gram(E: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``E E^T`` of float64 rows (k, d), rounded to ``dtype``, without a (k, k) matrix in float64.

    What is above the diagonal blocks is copied, which leaves 5/8 of the operations.
    """
    k = len(E)
    G, width = torch.empty(k, k, dtype=dtype), max(1, min(GRAM_ROWS, -(-k // STRIPS)))
    for start in range(0, k, width):
        rows, before = slice(start, start + width), slice(0, start)
        G[rows, : start + width] = (E[rows] @ E[: start + width].T).to(dtype)
        G[before, rows] = G[rows, before].T
    return G


def solve_on_support(
    Z: Tensor, Q: Tensor, D: Tensor, G: Tensor | None, penalty: float, rounds: int = 1, *,
    keep_signs: bool | None = None,
) -> Tensor:  # fmt: skip
    """Return the minimisers on the supports of Z (n, k).

    If ``keep_signs`` (by default under a penalty), a code whose sign would change becomes zero, and the
    smaller system is solved again, up to ``rounds`` times in all.  With free signs one round suffices.

    >>> Z, Q, D = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.2]]), torch.eye(2)
    >>> solve_on_support(Z, Q, D, None, penalty=0.1)
    tensor([[0.4000, 0.0000]])
    """
    out = Z.clone()
    counts = (Z != 0).sum(dim=1)
    order = counts.argsort()
    order = order[(counts[order] > 0) & (counts[order] <= LARGEST_SUPPORT)]
    for rows in order.split(ROWS_AT_ONCE) if len(order) else ():
        size = int(counts[rows[-1]])
        values, atoms = Z[rows].abs().topk(size, dim=1)
        live = values > 0
        signs = Z[rows].gather(1, atoms).sign().double()
        target = Q[rows].gather(1, atoms).double() - penalty * signs
        system = systems(atoms, D, G)
        codes = _solve(system, target, live)
        if penalty > 0 if keep_signs is None else keep_signs:
            codes = _keep_signs(codes, signs, system, target, live, rounds)
        out[rows] = torch.zeros_like(Z[rows]).scatter_(1, atoms, codes.to(Z))
    return out


def solve_with_signs(E: Tensor, Q: Tensor, D: Tensor, G: Tensor | None, penalty: float) -> Tensor:
    """Solve ``G_ss z = q_s - penalty e`` with supports and signs ``e`` given by E (n, k), all in float64."""
    counts = (E != 0).sum(dim=1)
    size = max(1, int(counts.max()))
    present, atoms = E.abs().topk(size, dim=1)
    live = present > 0
    codes = _solve(systems(atoms, D, G), Q.gather(1, atoms) - penalty * E.gather(1, atoms), live)
    return torch.zeros_like(E).scatter_(1, atoms, torch.where(live, codes, 0.0))


def solve_atoms(atoms: Tensor, live: Tensor, Q: Tensor, D: Tensor, G: Tensor | None) -> Tensor:
    """Return least-squares codes (n, k) on the atoms (n, m) of each row that are ``live``, in float64."""
    codes = _solve(systems(atoms, D, G), Q.gather(1, atoms).double(), live)
    return torch.zeros_like(Q, dtype=torch.float64).scatter_add_(1, atoms, codes)


def squared_distances(E: Tensor, D: Tensor, G: Tensor | None) -> Tensor:
    """Return the squared distance (n, k) of every atom from the span of those where E (n, k) is not 0."""
    size = max(1, int((E != 0).sum(dim=1).max()))
    present, atoms = E.abs().topk(size, dim=1)
    live = present > 0
    system = torch.where(live[:, :, None] & live[:, None, :], systems(atoms, D, G), 0.0)
    system.diagonal(dim1=1, dim2=2).mul_(1 + RIDGE).add_((~live).double())
    products = D[atoms].double() @ D.double().T if G is None else G[atoms]
    W = torch.linalg.solve_triangular(
        torch.linalg.cholesky_ex(system)[0], products * live[:, :, None], upper=False
    )
    distances: Tensor = D.double().square().sum(dim=1) - W.square().sum(dim=1)
    return distances


def _keep_signs(
    codes: Tensor, signs: Tensor, system: Tensor, target: Tensor, live: Tensor, rounds: int
) -> Tensor:
    """Drop codes of the wrong sign and solve their rows again."""
    codes = codes * live
    for last in range(rounds - 1, -1, -1):
        wrong = (codes * signs < 0).any(dim=1).nonzero()[:, 0]
        if not len(wrong):
            break
        live[wrong] &= codes[wrong] * signs[wrong] > 0
        again = _solve(system[wrong], target[wrong], live[wrong]) if last else codes[wrong]
        codes[wrong] = torch.where(live[wrong], again, 0.0)
    return codes


def systems(atoms: Tensor, D: Tensor, G: Tensor | None) -> Tensor:
    """Return the Gram matrices (n, m, m) of the atoms (n, m) of each row, in float64."""
    if G is not None:
        return G[atoms[:, :, None], atoms[:, None, :]]
    chosen = D[atoms].double()
    return chosen @ chosen.mT


def _solve(system: Tensor, target: Tensor, live: Tensor) -> Tensor:
    """Solve ``system z = target`` over the live entries; the others become zero."""
    matrix = torch.where(live[:, :, None] & live[:, None, :], system, 0.0)
    matrix.diagonal(dim1=1, dim2=2).mul_(1 + RIDGE).add_((~live).double())
    right = torch.where(live, target, 0.0)[:, :, None]
    factor, info = torch.linalg.cholesky_ex(matrix)
    codes = torch.cholesky_solve(right, factor)[:, :, 0]
    if info.any():  # equal atoms: any of the minimisers will do
        bad = info.nonzero()[:, 0]
        codes[bad] = (torch.linalg.pinv(matrix[bad], hermitian=True) @ right[bad])[:, :, 0]
    return codes
