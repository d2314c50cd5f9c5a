"""Exact lasso codes of many atoms on the CPU, without a matrix of atoms by atoms; compiled by numba.

Each row searches among a working set of atoms, at first those of largest correlation.  Atoms outside it whose
correlation with the residual then exceeds the penalty join it, until none does: the codes are the minimisers.
One product of the residuals with all atoms finds most of them.  Afterwards ``|c'_j - c_j| <= ||r' - r||
||D_j||`` leaves few atoms to look at.  (Working sets with a bound on the others as in Massias, Gramfort &
Salmon, "Celer", ICML 2018.)

The products with all atoms are in the precision of the rows and only narrow the choice; what decides is
computed in float64, row by row, so that the codes of a row do not depend on the others of its batch.

Legend:  A (n, d)   Z (n, k)   D (k, d)   R = A - Z D (n, d)   C = R D^T (n, k)   E (w, d) atoms of one row's
working set   q = a E^T (w,)   c = r E^T (w,)
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.compiled import Array, compiled, in_threads, inlined
from seminmf_lightning.encoders.numba_kernels import (
    DEPENDENT,
    MOST_NONZEROS,
    ROUNDING,
    TOGETHER,
    _largest,
    _search,
    _strongest,
)

CONCEPTS = 8192
"""Atoms from which this replaces the search on ``G = D D^T``.  Processor seconds per 8,192 rows of MiniLM
(d = 384, penalty 0.1, one thread), G formed once among them, of both: 0.77 and 1.36 at k = 2,048, 2.3 and 3.9
at 4,096, 4.3 and 3.7 at 8,192, 10.6 and 7.3 at 16,384; 11.7 of working sets at 32,768."""
CORRELATIONS_AT_ONCE = 2**24
"""Entries of C that are held at once."""
ATOMS, MOST_ATOMS = 64, 1024
"""Fewest atoms in a working set, and the most that it grows to.  48, 64 and 96 at first take 0.44, 0.46 and
0.46 ms per row at k = 8,192, and 0.88, 0.83 and 0.92 at 16,384."""
SEARCHED = 8
"""Where more than one in so many atoms may exceed the penalty, the next product with all atoms tells."""
PRODUCTS = 50
"""Products with all atoms at most; three are usual."""
NORM_ROUNDING, EPS = 1 + 1e-4, 1e-14
"""Bounds on the rounding of a norm, and of a correlation in float64 per feature, as shares."""


def lasso(A: Tensor, D: Tensor, penalty: float, *, nonnegative: bool = False) -> Tensor:
    """Return the minimisers Z (n, k) of ``1/2 ||a - z D||^2 + penalty ||z||_1``, row by row.

    Over ``z >= 0`` if ``nonnegative``.  Memory beside A, D and Z: at most :data:`CORRELATIONS_AT_ONCE`
    numbers (or one row of k) and as many of the residuals' d features in float64, and per thread
    :data:`MOST_ATOMS` rows of D and 17 k bytes.
    """
    Z, D = A.new_zeros(len(A), len(D)), D.contiguous()
    longest = float(torch.linalg.vector_norm(D, dim=1).max()) * NORM_ROUNDING
    rows_at_once = max(1, CORRELATIONS_AT_ONCE // len(D))
    for rows, codes in zip(A.split(rows_at_once), Z.split(rows_at_once), strict=True):
        _encode(rows.contiguous(), D, longest, penalty, nonnegative, codes)
    return Z


def _encode(A: Tensor, D: Tensor, longest: float, penalty: float, nonnegative: bool, Z: Tensor) -> None:
    """Write the codes of a block of rows into Z."""
    R, rows = A.double().clone(), torch.arange(len(A))
    # A lower precision that the user allows for products would break the bound on their rounding.
    lowered = torch.get_float32_matmul_precision() != "highest"
    rounding = (D.shape[1] + 2) * torch.finfo(A.dtype).eps * longest
    dependent, most = DEPENDENT[torch.float64], min(MOST_NONZEROS, len(D))
    a, atoms, r, z = (x.numpy() for x in (A, D, R, Z))
    for product in range(PRODUCTS):
        C = (R[rows] @ D.double().T).to(A) if lowered else R[rows].to(A) @ D.T
        done = torch.zeros(len(rows), dtype=torch.bool)
        c, which, finished, first = C.numpy(), rows.numpy(), done.numpy(), product == 0

        def work(part: slice, c: Array, which: Array, finished: Array, first: bool) -> None:
            _working_rows(
                c[part], which[part], finished[part], a, atoms, r, z, penalty, longest, rounding, dependent,
                most, nonnegative, first,
            )  # fmt: skip

        in_threads(partial(work, c=c, which=which, finished=finished, first=first), len(rows))
        rows = rows[~done]
        if not len(rows):
            return


@inlined
def _strength(c: float, nonnegative: bool) -> float:
    return c if nonnegative else abs(c)


@inlined
def _dot(x: Array, y: Array) -> float:
    value = 0.0
    for h in range(len(x)):
        value += np.float64(x[h]) * np.float64(y[h])
    return value


@inlined
def _level(c: Array, maxima: Array, count: int, nonnegative: bool) -> float:
    """Return a level that at least ``count`` of the correlations reach, and few more: that many maxima of
    equal parts of them do."""
    size = -(-len(c) // len(maxima))
    parts = len(c) // size
    if parts <= count:
        return -np.inf
    for i in range(parts):
        largest = _strength(c[i * size], nonnegative)
        for j in range(i * size, (i + 1) * size):
            largest = max(largest, _strength(c[j], nonnegative))
        maxima[i] = largest
    return float(np.partition(maxima[:parts], parts - count)[parts - count])


@inlined
def _add_strongest(
    W: Array, w: int, total: int, inside: Array, c: Array, error: float, r: Array, D: Array, found: Array,
    values: Array, maxima: Array, nonnegative: bool,
) -> int:  # fmt: skip
    """Add atoms of largest correlation until there are ``total``; float64 decides where c, known within the
    ``error``, cannot."""
    low, count = _level(c, maxima, total, nonnegative) - 2 * error, 0
    for j in range(len(c)):
        value = _strength(c[j], nonnegative)
        if value >= low and not inside[j]:
            found[count], values[count] = j, value
            count += 1
    missing, near = total - w, 0
    low = np.partition(values[:count], count - missing)[count - missing] if count > missing else -np.inf
    for i in range(count):
        if values[i] > low + 2 * error:
            W[w] = found[i]
            w += 1
        elif values[i] >= low - 2 * error:
            found[near], values[near] = found[i], _strength(_dot(r, D[found[i]]), nonnegative)
            near += 1
    order = np.argsort(-values[:near], kind="mergesort")
    for i in range(min(near, total - w)):
        W[w + i] = found[order[i]]
    w += min(near, total - w)
    W[:w] = np.sort(W[:w])
    return w


@compiled
def _working_rows(
    C: Array, which: Array, done: Array, A: Array, D: Array, R: Array, Z: Array, penalty: float,
    longest: float, rounding: float, dependent: float, most: int, nonnegative: bool, first: bool,
) -> None:  # fmt: skip
    k, d = D.shape
    cap = min(k, MOST_ATOMS)
    W, inside, found, values = (
        np.empty(cap, np.int64),
        np.zeros(k, np.bool_),
        np.empty(k, np.int64),
        np.empty(k),
    )
    E, q, c, products = np.empty((cap, d), D.dtype), np.empty(cap), np.empty(cap), np.empty(cap)
    r, no_gram, maxima = np.empty(d), np.empty((0, 0)), np.empty(4 * ATOMS)
    atoms, L, barred = np.empty(most, np.int64), np.empty((most, most)), np.empty(cap, np.int64)
    codes, signs, half, target = np.empty(most), np.empty(most), np.empty(most), np.empty(most)
    rounded = np.empty(most)
    for index in range(len(which)):
        a, z, center, near = A[which[index]], Z[which[index]], R[which[index]], C[index]
        error = rounding * np.sqrt(_dot(center, center))
        bar = penalty * (1 + ROUNDING) + EPS * d * longest * np.sqrt(_dot(a, a))
        r[:] = center
        w, m, n, fresh = 0, 0, 0, True  # fresh: no search yet with these correlations
        if not first:
            for j in range(k):
                if z[j] != 0:
                    W[w], inside[j] = j, True
                    w += 1
        while True:
            count, strongest, radius = 0, 0.0, 0.0
            if fresh:
                j = _largest(near) if nonnegative else _strongest(near)
                strongest = _strength(near[j], nonnegative)
            if strongest <= bar + error:  # look at each atom outside that may exceed the penalty
                for h in range(d):
                    radius += (r[h] - center[h]) ** 2
                reach = bar - error - np.sqrt(radius) * longest
                for j in range(k):
                    if _strength(near[j], nonnegative) > reach and not inside[j]:
                        found[count] = j
                        count += 1
                if not fresh and count * SEARCHED > k:
                    break
                strongest = 0.0
                for i in range(count):
                    values[i] = _strength(_dot(r, D[found[i]]), nonnegative)
                    strongest = max(strongest, values[i])
                if strongest <= bar:
                    done[index] = True
                    break
            size = 0 if fresh else w
            if fresh and w < cap:
                total = min(max(ATOMS, 2 * w), cap)
                w = _add_strongest(
                    W, w, total, inside, near, error, center, D, found, values, maxima, nonnegative
                )
            elif not fresh:
                level = bar + TOGETHER * (strongest - bar)
                for i in range(count):
                    if values[i] >= level and w < cap:
                        W[w] = found[i]
                        w += 1
            if w == size:
                done[index] = w == 0  # not a number
                break
            fresh = False
            for i in range(size, w):
                inside[W[i]] = True
                E[i] = D[W[i]]
                q[i] = _dot(a, E[i])
                c[i] = q[i] if size == 0 else _dot(r, E[i])
            m, n = _search(
                q[:w], c[:w], no_gram, E, a, r, products, penalty, 0.0, dependent, most, nonnegative, L,
                atoms, codes, signs, half, target, rounded, m, barred, n,
            )  # fmt: skip
            r[:] = a
            for i in range(m):
                code, atom = codes[i], E[atoms[i]]
                for h in range(d):
                    r[h] -= code * atom[h]
            if m == most:
                done[index] = True
                break
        for i in range(w):
            inside[W[i]] = False
            if not fresh:
                z[W[i]] = 0
        if not fresh:
            center[:] = r
            for i in range(m):
                z[W[atoms[i]]] = codes[i]
