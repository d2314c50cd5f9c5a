"""Codes of ``encoder=threshold`` row by row on the CPU, compiled by numba: lasso path, largest codes, refit.

The same steps as in :mod:`~seminmf_lightning.encoders.homotopy`, and tests hold both equal.

Legend:  Q = A U^T (n, k)   G = U U^T (k, k)   Z (n, k)   c = q - z G, correlations of the residual
         L Cholesky factor of G on the support   m nonzeros so far   y growth of codes as the penalty falls
         r = y G, fall of correlations
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.compiled import Array, compiled, inlined
from seminmf_lightning.encoders.numba_kernels import (
    DEPENDENT,
    _append,
    _backward,
    _forward,
    _in_threads,
    _largest,
    _strongest,
)

ROUNDING = 64.0
"""In units of rounding: a penalty below this share of the row's norm, or a residual of the refit, is zero."""
EVENTS_PER_ATOM = 4
"""Most events per atom of the dictionary; a path ends there, at the lasso codes reached."""


def threshold(
    Q: Tensor, G: Tensor, norms: Tensor, longest: int, nonzeros: int, *, nonnegative: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes (n, k) of unit atoms, the atoms (n, nonzeros) refitted, -1 where there are fewer, and the
    residual (n,) of the refit, as in :func:`~seminmf_lightning.core.objective.refit_residual`.

    The lasso path of a row ends before it has more than ``longest`` nonzeros.  The residual is that of Q and
    G, whose rounding is of its size.

    Args:
        norms: ``||a||``, (n,).
    """
    gram, lengths = G.numpy(), norms.double().numpy()
    rounding, dependent = torch.finfo(Q.dtype).eps, DEPENDENT[Q.dtype]
    kept, residual = torch.full((len(Q), nonzeros), -1), torch.zeros(len(Q), dtype=torch.float64)
    atoms, violation = kept.numpy(), residual.numpy()

    def work(rows: slice, q: Array, z: Array) -> None:
        _threshold_rows(
            q, gram, lengths[rows], rounding, dependent, longest, nonzeros, nonnegative, z, atoms[rows],
            violation[rows],
        )  # fmt: skip

    return _in_threads(work, Q), kept, residual


@inlined
def _slopes(r: Array, G: Array, atoms: Array, y: Array, m: int) -> None:
    """``r <- y G``, in the precision of G."""
    r[:] = 0
    for i in range(0, m - m % 4, 4):  # four at a time: r is read and written a quarter as often
        y0, y1, y2, y3 = y[i], y[i + 1], y[i + 2], y[i + 3]
        g0, g1, g2, g3 = G[atoms[i]], G[atoms[i + 1]], G[atoms[i + 2]], G[atoms[i + 3]]
        for j in range(len(r)):
            r[j] += y0 * g0[j] + y1 * g1[j] + y2 * g2[j] + y3 * g3[j]
    for i in range(m - m % 4, m):
        slope, row = y[i], G[atoms[i]]
        for j in range(len(r)):
            r[j] += slope * row[j]


@inlined
def _next_entry(c: Array, r: Array, may_enter: Array, numbers: Array, nonnegative: bool, rates: Array) -> int:
    """Return the atom whose correlation is the first to meet the falling penalty, after 1 / ``rates[atom]``.

    ``numbers`` are the penalty, its rounding, 0 and 1, in the precision of c.
    """
    penalty, rounding, zero, one = numbers[0], numbers[1], numbers[2], numbers[3]
    if nonnegative:
        for j in range(len(c)):
            rates[j] = max((one - r[j]) / max(penalty - c[j], rounding), zero) * may_enter[j]
    else:
        for j in range(len(c)):
            up, down = (
                (one - r[j]) / max(penalty - c[j], rounding),
                (one + r[j]) / max(penalty + c[j], rounding),
            )
            rates[j] = max(max(up, down), zero) * may_enter[j]
    return int(_strongest(rates))


@inlined
def _path(
    q: Array, G: Array, smallest: float, rounding: float, dependent: float, longest: int, nonnegative: bool,
    c: Array, r: Array, may_enter: Array, rates: Array, numbers: Array,
    atoms: Array, codes: Array, signs: Array, L: Array, half: Array, y: Array, rounded: Array,
) -> int:  # fmt: skip
    """Follow the lasso path of a row; return the number m of its ``atoms`` and ``codes``."""
    m, valid = 0, 0  # `valid` leading rows of L and of `half`, the solution of L half = signs
    c[:] = q
    may_enter[:] = 1
    entering = _largest(c) if nonnegative else _strongest(c)
    penalty = np.float64(c[entering] if nonnegative else abs(c[entering]))
    for _ in range(EVENTS_PER_ATOM * len(c)):
        if penalty <= smallest or (entering >= 0 and m == longest):
            break
        if entering >= 0:
            may_enter[entering] = 0
            atoms[m], codes[m], signs[m] = entering, 0.0, np.sign(c[entering])
            m += 1
        for i in range(valid, m):
            half[i] = signs[i]
            if not _append(
                L, G[atoms[i]], atoms, i, atoms[i], dependent
            ):  # the new one is a sum of the others
                m -= 1
        _forward(L, half, valid, m)
        valid = m
        y[:m] = half[:m]
        _backward(L, y, m)
        rounded[:m] = y[:m]
        _slopes(r, G, atoms, rounded, m)
        numbers[0], numbers[1] = penalty, penalty * rounding
        entering = _next_entry(c, r, may_enter, numbers, nonnegative, rates)
        step, leaving = penalty, -1
        if rates[entering] * penalty > 1:
            step = 1 / np.float64(rates[entering])
        else:
            entering = -1
        for i in range(m):
            if y[i] * signs[i] < 0 and -codes[i] / y[i] <= step:
                step, leaving = -codes[i] / y[i], i
        for i in range(m):
            codes[i] += step * y[i]
        numbers[0] = step
        for j in range(len(c)):
            c[j] -= numbers[0] * r[j]
        penalty -= step
        if leaving >= 0:
            entering = -1
            if leaving < m - 1 or step > 0:  # else rounding alone brought it in, and it stays out
                may_enter[atoms[leaving]] = 1
            m, valid = m - 1, leaving
            for i in range(leaving, m):
                atoms[i], codes[i], signs[i] = atoms[i + 1], codes[i + 1], signs[i + 1]
        elif entering < 0:
            break
    return m


@inlined
def _keep_largest(atoms: Array, codes: Array, m: int, most: int) -> int:
    """Remove the smallest codes beyond ``most``; return how many are left."""
    while m > most:
        least = 0
        for i in range(m):
            if abs(codes[i]) < abs(codes[least]):
                least = i
        m -= 1
        for i in range(least, m):
            atoms[i], codes[i] = atoms[i + 1], codes[i + 1]
    return m


@inlined
def _refit(
    q: Array, G: Array, atoms: Array, codes: Array, m: int, smallest: float, dependent: float,
    nonnegative: bool, L: Array, target: Array, order: Array, slots: Array, inside: Array,
) -> None:  # fmt: skip
    """Minimise on the support of m atoms, over codes above 0 as Lawson & Hanson do, 1974, chapter 23."""
    inside[:m] = True
    for _ in range(EVENTS_PER_ATOM * m):
        p = 0
        for i in range(m):
            if inside[i] and _append(L, G[atoms[i]], order, p, atoms[i], dependent):
                target[p], slots[p] = q[atoms[i]], i
                p += 1
            else:
                inside[i], codes[i] = False, 0.0
        _forward(L, target, 0, p)
        _backward(L, target, p)
        step, leaving = 1.0, -1
        for i in range(p):
            code = codes[slots[i]]
            if nonnegative and target[i] <= 0 and code <= step * (code - target[i]):
                step, leaving = code / (code - target[i]) if code > target[i] else 0.0, slots[i]
        for i in range(p):
            codes[slots[i]] += step * (target[i] - codes[slots[i]])
        if leaving >= 0:
            inside[leaving], codes[leaving] = False, 0.0
            continue
        strongest, strength = -1, smallest
        for i in range(m):
            if nonnegative and not inside[i]:
                correlation = np.float64(q[atoms[i]])
                for h in range(p):
                    correlation -= G[atoms[i], order[h]] * target[h]
                if correlation > strength:
                    strongest, strength = i, correlation
        if strongest < 0:
            break
        inside[strongest] = True


@inlined
def _residual(
    q: Array, G: Array, norm: float, atoms: Array, codes: Array, m: int, nonnegative: bool
) -> float:
    """Return the largest violation of the conditions of optimality, over ``||a|| + sum_i |z_i|``."""
    largest, scale = 0.0, norm
    for i in range(m):
        scale += abs(codes[i])
        correlation = np.float64(q[atoms[i]])
        for h in range(m):
            correlation -= G[atoms[i], atoms[h]] * codes[h]
        if not nonnegative or codes[i] != 0 or correlation > 0:
            largest = max(largest, abs(correlation))
    return largest / scale if scale > 0 else 0.0


@partial(compiled, error_model="numpy")  # without a check for zero, divisions become vector instructions
def _threshold_rows(
    Q: Array, G: Array, norms: Array, rounding: float, dependent: float, longest: int, nonzeros: int,
    nonnegative: bool, Z: Array, kept: Array, residual: Array,
) -> None:  # fmt: skip
    k, dtype = Q.shape[1], Q.dtype
    c, r, may_enter, rates = np.empty(k, dtype), np.empty(k, dtype), np.empty(k, dtype), np.empty(k, dtype)
    numbers, rounded = np.array([0.0, 0.0, 0.0, 1.0]).astype(dtype), np.empty(longest, dtype)
    L, half, y = np.empty((longest, longest)), np.empty(longest), np.empty(longest)
    codes, signs, inside = np.empty(longest), np.empty(longest), np.empty(longest, np.bool_)
    atoms, order, slots = (
        np.empty(longest, np.int64),
        np.empty(longest, np.int64),
        np.empty(longest, np.int64),
    )
    for row in range(len(Q)):
        smallest = norms[row] * ROUNDING * rounding
        m = _path(
            Q[row], G, smallest, rounding, dependent, longest, nonnegative,
            c, r, may_enter, rates, numbers, atoms, codes, signs, L, half, y, rounded,
        )  # fmt: skip
        m = _keep_largest(atoms, codes, m, nonzeros)
        _refit(Q[row], G, atoms, codes, m, smallest, dependent, nonnegative, L, half, order, slots, inside)
        for i in range(m):
            Z[row, atoms[i]], kept[row, i] = codes[i], atoms[i]
        residual[row] = _residual(Q[row], G, norms[row], atoms, codes, m, nonnegative)
