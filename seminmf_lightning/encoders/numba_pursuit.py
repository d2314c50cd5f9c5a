"""Matching pursuit row by row on the CPU, compiled by numba (extra ``fast``).

Each pick adds an orthonormal direction.  Its correlations with all atoms, a row of W, lower their
correlations with the residual and their squared distances from the span of the support: O(m k) for the m-th
pick.
Nonnegative codes: an atom whose least-squares code would fall below 0 leaves, by Givens rotations of L and W.

Legend:  Q = A U^T (n, k)   G = U U^T (k, k)   Z (n, k)   L Cholesky factor of G on the support
         W = L^-1 G_S (nonzeros, k)   half = L^-1 q_S   m nonzeros so far
         c (k,) correlations of the residual, over ||a||   v (k,) squared distances from the span
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.compiled import Array, compiled, inlined
from seminmf_lightning.encoders.numba_kernels import _append, _backward, _forward, _in_threads

ROUNDING = 64.0
"""In units of rounding: a correlation below this share of the row's norm is zero, and an atom whose squared
distance from the span is below this depends on the support."""
TRIES_PER_ATOM = 4
"""Most picks per atom of the dictionary; only nonnegative codes come near."""


def pursue(
    Q: Tensor, G: Tensor, norms: Tensor, nonzeros: int, *, by_error: bool = True, nonnegative: bool = False
) -> Tensor:
    """Return codes Z (n, k) with ``nonzeros`` unit atoms per row; fewer where nothing is left.

    Args:
        norms: ``||a||``, (n,).
        by_error: pick the atom that lowers the error most, else the one of largest correlation.
    """
    gram, lengths = G.numpy(), norms.double().numpy()
    number = gram.dtype.type  # numbers of another precision would make numba compute in it
    rounding = ROUNDING * torch.finfo(Q.dtype).eps
    lowest, narrowing = number(0 if nonnegative else -2), number(by_error)

    def work(rows: slice, q: Array, z: Array) -> None:
        _pursue_rows(q, gram, lengths[rows], number(rounding), narrowing, lowest, nonzeros, nonnegative, z)

    return _in_threads(work, Q)


@inlined
def _best(c: Array, v: Array, free: Array, lowest: float, floor: float, tree: Array, sizes: Array) -> int:
    """Return the free atom of the largest ``c_j^2 / v_j``, which becomes ``tree[0]``; by a knockout."""
    n, at, level = len(c), 0, 0
    for j in range(n):
        x = max(c[j], lowest)
        tree[j] = free[j] * x * x / max(v[j], floor)
    while n > 1:  # the larger of each pair goes on, in vector instructions
        half = (n + 1) // 2
        low, high, winners = tree[at : at + half], tree[at + half : at + n], tree[at + n : at + n + half]
        winners[half - 1] = low[half - 1]
        for j in range(n - half):
            winners[j] = max(low[j], high[j])
        sizes[level] = n
        at, n, level = at + n, half, level + 1
    j, best = 0, tree[at]
    while level > 0:
        level -= 1
        at -= sizes[level]
        if tree[at + j] != best:
            j += (sizes[level] + 1) // 2
    tree[0] = best
    return j


@inlined
def _project(w: Array, W: Array, shares: Array, m: int) -> None:
    """``w <- w - shares W`` over m rows."""
    for i in range(0, m - m % 8, 8):  # eight at a time: w is read and written an eighth as often
        s0, s1, s2, s3 = shares[i], shares[i + 1], shares[i + 2], shares[i + 3]
        s4, s5, s6, s7 = shares[i + 4], shares[i + 5], shares[i + 6], shares[i + 7]
        w0, w1, w2, w3, w4, w5, w6, w7 = (
            W[i], W[i + 1], W[i + 2], W[i + 3], W[i + 4], W[i + 5], W[i + 6], W[i + 7],
        )  # fmt: skip
        for j in range(len(w)):
            w[j] -= (
                s0 * w0[j] + s1 * w1[j] + s2 * w2[j] + s3 * w3[j]
                + s4 * w4[j] + s5 * w5[j] + s6 * w6[j] + s7 * w7[j]
            )  # fmt: skip
    for i in range(m - m % 8, m):
        share, other = shares[i], W[i]
        for j in range(len(w)):
            w[j] -= share * other[j]


@inlined
def _add_direction(c: Array, v: Array, w: Array, size: float, narrowing: float) -> None:
    """Take the row's part ``size`` along a direction out of c, and the atoms' parts out of v."""
    for j in range(len(c)):
        c[j] -= size * w[j]
        v[j] -= narrowing * w[j] * w[j]


@inlined
def _rotate(x: Array, y: Array, cosine: float, sine: float) -> None:
    for j in range(len(x)):
        first, second = x[j], y[j]
        x[j] = cosine * first + sine * second
        y[j] = cosine * second - sine * first


@inlined
def _leave(L: Array, W: Array, half: Array, atoms: Array, codes: Array, leaving: int, m: int) -> None:
    """Remove one of m atoms; the direction that goes with it becomes the last."""
    for i in range(leaving, m - 1):
        atoms[i], codes[i] = atoms[i + 1], codes[i + 1]
        for h in range(i + 2):
            L[i, h] = L[i + 1, h]
    for i in range(leaving, m - 1):
        length = np.hypot(L[i, i], L[i, i + 1])
        cosine, sine = L[i, i] / length, L[i, i + 1] / length
        _rotate(L[i : m - 1, i], L[i : m - 1, i + 1], cosine, sine)
        _rotate(half[i : i + 1], half[i + 1 : i + 2], cosine, sine)
        _rotate(W[i], W[i + 1], W.dtype.type(cosine), W.dtype.type(sine))


@partial(compiled, error_model="numpy")  # without a check for zero, divisions become vector instructions
def _pursue_rows(
    Q: Array, G: Array, norms: Array, rounding: float, narrowing: float, lowest: float, nonzeros: int,
    nonnegative: bool, Z: Array,
) -> None:  # fmt: skip
    k, dtype = Q.shape[1], Q.dtype
    c, v, free = np.empty(k, dtype), np.empty(k, dtype), np.empty(k, dtype)
    tree, sizes = np.empty(2 * k + 64, dtype), np.empty(64, np.int64)
    W, shares = np.empty((nonzeros, k), dtype), np.empty(nonzeros, dtype)
    atoms, L = np.empty(nonzeros, np.int64), np.empty((nonzeros, nonzeros))
    half, codes, target = np.empty(nonzeros), np.empty(nonzeros), np.empty(nonzeros)
    for row in range(len(Q)):
        q, norm, m = Q[row], norms[row], 0
        scale = dtype.type(1 / norm if norm > 0 else 0.0)
        for j in range(k):
            c[j], v[j], free[j] = q[j] * scale, 1, 1
        for _ in range(TRIES_PER_ATOM * k):
            j = _best(c, v, free, lowest, rounding, tree, sizes)
            if m == nonzeros or tree[0] <= rounding * rounding:
                break
            free[j] = 0
            if abs(c[j]) <= rounding or not _append(L, G[j], atoms, m, j, rounding):
                continue
            half[m], codes[m] = q[j], 0.0
            _forward(L, half, m, m + 1)
            m += 1
            if nonnegative:
                target[:m] = half[:m]
                _backward(L, target, m)
            if m == nonzeros and not (nonnegative and target[:m].min() <= 0):
                break
            w, length = W[m - 1], dtype.type(1 / L[m - 1, m - 1])
            for i in range(m - 1):
                shares[i] = L[m - 1, i]
            w[:] = G[j]
            _project(w, W, shares, m - 1)
            for i in range(k):
                w[i] *= length
            _add_direction(c, v, w, dtype.type(half[m - 1] / norm), narrowing)
            while nonnegative:  # go towards the target; what reaches 0 first leaves
                step, leaving = 1.0, -1
                for i in range(m):
                    if target[i] <= 0:
                        share = codes[i] / (codes[i] - target[i]) if codes[i] > 0 else 0.0
                        if share < step or leaving < 0:
                            step, leaving = share, i
                for i in range(m):
                    codes[i] += step * (target[i] - codes[i])
                if leaving < 0:
                    break
                if atoms[leaving] != j:  # else rounding alone brought it in, and it stays out
                    free[atoms[leaving]] = 1
                _leave(L, W, half, atoms, codes, leaving, m)
                m -= 1
                _add_direction(c, v, W[m], dtype.type(-half[m] / norm), -narrowing)
                target[:m] = half[:m]
                _backward(L, target, m)
        target[:m] = half[:m]
        _backward(L, target, m)
        for i in range(m):
            Z[row, atoms[i]] = target[i]
