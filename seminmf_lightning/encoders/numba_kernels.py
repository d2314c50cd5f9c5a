"""Exact lasso codes row by row on the CPU, compiled by numba (extra ``fast``).

The support of a row grows an atom at a time, and a Cholesky factor along with it, so that a row costs only a
few rows of the Gram matrix.  The batched algorithms do the same work without numba and on a GPU; tests hold
them equal.

Lee, Battle, Raina & Ng, NIPS 2007 (feature-sign search).  With nonnegative codes the search takes only codes
above 0 in; without a penalty it is then the method of Lawson & Hanson for nonnegative least squares, 1974.

Legend:  Q = A D^T (n, k)   G = D D^T (k, k)   Z (n, k)   L Cholesky factor of G on the support   m nonzeros
so far
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.compiled import Array, compiled, in_threads, inlined, on_cpu

MOST_CONCEPTS = 16_384  # of what needs G (k, k): beyond, it takes more than 1 GB
MOST_NONZEROS = 512
DEPENDENT = {torch.float32: 1e-7, torch.float64: 1e-12}
"""An atom whose new part is a smaller share of it, squared, adds nothing to the support."""
TOGETHER, AT_ONCE = 0.5, 16
"""Atoms whose correlation exceeds the penalty by this share of the largest excess enter at once, that many at
most."""
ROUNDING = 1e-6  # slack of the optimality conditions, relative to the penalty


def usable(D: Tensor) -> bool:
    """Return whether numba is installed and its kernels can work with this dictionary."""
    return on_cpu(D) and D.shape[0] <= MOST_CONCEPTS


def lasso(
    Q: Tensor, G: Tensor, penalty: float, *, nonnegative: bool = False, slack: Tensor | None = None,
    most: int = MOST_NONZEROS,
) -> Tensor:  # fmt: skip
    """Return the minimisers Z (n, k) of ``1/2 z G z - q z + penalty ||z||_1``, row by row.

    Over ``z >= 0`` if ``nonnegative``; with at most ``most`` nonzeros.  Correlations up to ``slack`` (n,)
    above the penalty are rounding.
    """
    gram, most, dependent = G.numpy(), min(most, len(G)), DEPENDENT[Q.dtype]
    slacks = np.zeros(len(Q)) if slack is None else slack.numpy()

    def work(rows: slice, q: Array, z: Array) -> None:
        _lasso_rows(q, gram, penalty, slacks[rows], dependent, z, most, nonnegative)

    return _in_threads(work, Q)


def _in_threads(work: Callable[[slice, Array, Array], None], Q: Tensor) -> Tensor:
    """Call ``work(rows, q, z)`` on slices of the rows, in as many threads as torch has; return Z."""
    Z = torch.empty_like(Q).zero_()
    q, z = Q.contiguous().numpy(), Z.numpy()
    in_threads(lambda rows: work(rows, q[rows], z[rows]), len(q))
    return Z


@inlined
def _largest(c: Array) -> int:
    """Return the atom of the largest correlation."""
    largest = c[0]
    for j in range(len(c)):
        largest = max(largest, c[j])
    for j in range(len(c)):
        if c[j] == largest:
            return j
    return 0


@inlined
def _strongest(c: Array) -> int:
    """Return the atom of the largest correlation of either sign."""
    k = len(c)
    m0 = m1 = m2 = m3 = m4 = m5 = m6 = m7 = abs(c[0])
    for j in range(0, k - 7, 8):  # eight maxima side by side do not wait for one another
        m0, m1 = max(m0, abs(c[j])), max(m1, abs(c[j + 1]))
        m2, m3 = max(m2, abs(c[j + 2])), max(m3, abs(c[j + 3]))
        m4, m5 = max(m4, abs(c[j + 4])), max(m5, abs(c[j + 5]))
        m6, m7 = max(m6, abs(c[j + 6])), max(m7, abs(c[j + 7]))
    largest = max(max(max(m0, m1), max(m2, m3)), max(max(m4, m5), max(m6, m7)))
    for j in range(k - k % 8, k):
        largest = max(largest, abs(c[j]))
    for j in range(k):
        if abs(c[j]) == largest:
            return j
    return 0


@inlined
def _append(L: Array, products: Array, atoms: Array, m: int, j: int, dependent: float) -> bool:
    """Add atom j, row ``products`` of G, as row m of the factor; return False if it depends on the others."""
    new = products[j]
    for i in range(m):
        value = np.float64(products[atoms[i]])
        for h in range(i):
            value -= L[i, h] * L[m, h]
        L[m, i] = value / L[i, i]
        new -= L[m, i] * L[m, i]
    if new <= dependent * products[j]:
        return False
    L[m, m] = np.sqrt(new)
    atoms[m] = j
    return True


@inlined
def _forward(L: Array, x: Array, start: int, m: int) -> None:
    """``x <- L^-1 x`` from entry ``start`` on; the entries before are solved already."""
    for i in range(start, m):
        value = x[i]
        for h in range(i):
            value -= L[i, h] * x[h]
        x[i] = value / L[i, i]


@inlined
def _backward(L: Array, x: Array, m: int) -> None:
    """``x <- L^-T x``, which reads L along its rows."""
    for i in range(m - 1, -1, -1):
        value = x[i] / L[i, i]
        x[i] = value
        for h in range(i):
            x[h] -= L[i, h] * value


@inlined
def _leave(L: Array, atoms: Array, codes: Array, signs: Array, leaving: int, m: int) -> int:
    """Remove one atom of the support and its row of the factor, by Givens rotations; return m - 1."""
    for i in range(leaving, m - 1):
        atoms[i], codes[i], signs[i] = atoms[i + 1], codes[i + 1], signs[i + 1]
        for h in range(i + 2):
            L[i, h] = L[i + 1, h]
    for column in range(leaving, m - 1):
        length = np.hypot(L[column, column], L[column, column + 1])
        cosine, sine = L[column, column] / length, L[column, column + 1] / length
        for i in range(column, m - 1):
            first, second = L[i, column], L[i, column + 1]
            L[i, column] = cosine * first + sine * second
            L[i, column + 1] = cosine * second - sine * first
    return m - 1


@inlined
def _products(G: Array, E: Array, products: Array, atoms: Array, m: int, j: int) -> Array:
    """Return row j of G; without G only the entries that :func:`_append` needs, computed from the atoms E."""
    if E is None:
        return G[j]
    for i in range(m + 1):
        other, value = atoms[i] if i < m else j, 0.0
        x, y = E[j], E[other]
        for h in range(len(x)):
            value += np.float64(x[h]) * np.float64(y[h])
        products[other] = value
    return products


@inlined
def _correlate(
    c: Array, q: Array, G: Array, E: Array, a: Array, r: Array, atoms: Array, codes: Array, m: int,
    barred: Array, n: int,
) -> None:  # fmt: skip
    """``c <- q - z G``, or ``(a - z E) E^T`` by way of r; 0 for the atoms of the support and the n barred."""
    if E is None:
        c[:] = q
        for i in range(0, m - m % 4, 4):  # four at a time: c is read and written a quarter as often
            z0, z1, z2, z3 = codes[i], codes[i + 1], codes[i + 2], codes[i + 3]
            g0, g1, g2, g3 = G[atoms[i]], G[atoms[i + 1]], G[atoms[i + 2]], G[atoms[i + 3]]
            for j in range(len(c)):
                c[j] -= z0 * g0[j] + z1 * g1[j] + z2 * g2[j] + z3 * g3[j]
        for i in range(m - m % 4, m):
            code, row = codes[i], G[atoms[i]]
            for j in range(len(c)):
                c[j] -= code * row[j]
    else:
        r[:] = a
        for i in range(m):
            code, row = codes[i], E[atoms[i]]
            for h in range(len(r)):
                r[h] -= code * row[h]
        for j in range(len(c)):
            value, row = 0.0, E[j]
            for h in range(len(r)):
                value += r[h] * row[h]
            c[j] = value
    for i in range(m):
        c[atoms[i]] = 0
    for i in range(n):
        c[barred[i]] = 0


@inlined
def _search(
    q: Array, c: Array, G: Array, E: Array, a: Array, r: Array, products: Array, penalty: float, slack: float,
    dependent: float, most: int, nonnegative: bool, L: Array, atoms: Array, codes: Array, signs: Array,
    half: Array, target: Array, rounded: Array, m: int, barred: Array, n: int,
) -> tuple[int, int]:  # fmt: skip
    """Continue one row's search from m codes and n barred atoms, with correlations c; return new m and n."""
    k, optimal = len(q), True
    kept = 0  # leading entries of `half`, the solution of L half = ..., that are still valid
    for _ in range(4 * k):
        if optimal:
            j = _largest(c) if nonnegative else _strongest(c)
            strength = c[j] if nonnegative else abs(c[j])
            if strength <= penalty * (1 + ROUNDING) + slack or m == most or n == k:
                break
            sign = np.sign(c[j])
            if _append(L, _products(G, E, products, atoms, m, j), atoms, m, j, dependent):
                codes[m] = 0.0
            else:  # it is a sum of w_i atom_i: exchange it for the first whose code reaches zero
                target[:m] = L[m, :m]
                _backward(L, target, m)
                step, leaving = np.inf, -1
                for i in range(m):
                    if sign * target[i] * signs[i] > 0 and codes[i] / (sign * target[i]) < step:
                        step, leaving = codes[i] / (sign * target[i]), i
                if penalty == 0 or leaving < 0:
                    barred[n], c[j] = j, 0
                    n += 1
                    continue
                for i in range(m):
                    codes[i] -= step * sign * target[i]
                m, kept = _leave(L, atoms, codes, signs, leaving, m), min(kept, leaving)
                if not _append(L, _products(G, E, products, atoms, m, j), atoms, m, j, dependent):
                    barred[n], optimal = j, False
                    n += 1
                    continue
                codes[m] = step * sign
            signs[m] = sign
            m += 1
            if penalty > 0:  # others well above the penalty enter with it: fewer correlations are computed
                bar = penalty + TOGETHER * (strength - penalty)
                last = min(most, m + AT_ONCE)
                for other in range(k):
                    size = c[other] if nonnegative else abs(c[other])
                    if size < bar or other == j or m == last:
                        continue
                    if _append(L, _products(G, E, products, atoms, m, other), atoms, m, other, dependent):
                        codes[m], signs[m] = 0.0, np.sign(c[other])
                        m += 1
        for i in range(kept, m):
            half[i] = q[atoms[i]] - penalty * signs[i]
        _forward(L, half, kept, m)
        kept = m
        target[:m] = half[:m]
        _backward(L, target, m)
        step, leaving = 1.0, -1  # `leaving` is the first code on the way to `target` that reaches zero
        for i in range(m):
            if target[i] * signs[i] < 0:
                share = codes[i] / (codes[i] - target[i])
                if share < step or leaving < 0:
                    step, leaving = share, i
        for i in range(m):
            codes[i] += step * (target[i] - codes[i])
        optimal = leaving < 0
        if optimal:
            rounded[:m] = codes[:m]
            _correlate(c, q, G, E, a, r, atoms, rounded, m, barred, n)
            continue
        if step == 0.0:  # of atoms that entered with j, all of the wrong sign leave at once
            size, others = m, False
            for i in range(size - 1, -1, -1):
                if codes[i] == 0 and atoms[i] != j:
                    others = True
                    if target[i] * signs[i] < 0:
                        m, kept = _leave(L, atoms, codes, signs, i, m), min(kept, i)
            if m < size:
                continue
            if atoms[leaving] == j and not others and n < k:  # rounding alone brought it in
                barred[n] = j
                n += 1
        m, kept = _leave(L, atoms, codes, signs, leaving, m), min(kept, leaving)
    return m, n


@compiled
def _lasso_rows(
    Q: Array, G: Array, penalty: float, slack: Array, dependent: float, Z: Array, most: int, nonnegative: bool
) -> None:
    k = Q.shape[1]
    c, barred = np.empty(k, Q.dtype), np.empty(k, np.int64)
    atoms, L = np.empty(most, np.int64), np.empty((most, most))
    codes, signs, half, target = np.empty(most), np.empty(most), np.empty(most), np.empty(most)
    rounded = np.empty(most, Q.dtype)
    for row in range(len(Q)):
        c[:] = Q[row]
        m, _ = _search(
            Q[row], c, G, None, None, None, None, penalty, slack[row], dependent, most, nonnegative, L, atoms,
            codes, signs, half, target, rounded, 0, barred, 0,
        )  # fmt: skip
        for i in range(m):
            Z[row, atoms[i]] = codes[i]
