"""Sets and orders of row numbers whose size does not grow with the number of rows.

A held-out set is a few ranges; a shuffled epoch is a keyed bijection, computed batch by batch.  Both
allow random access, so that a resumed epoch seeks instead of replaying.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

HELD_OUT_BLOCKS = 32
FEISTEL_ROUNDS = 6


class RowSet:
    """Sorted, disjoint, half-open ranges of rows.  Position p = 0..len-1 stands for the p-th row of the set.

    >>> rows = RowSet(np.array([2, 10]), np.array([4, 13]))
    >>> len(rows), rows.rows(np.array([0, 2])).tolist(), rows.ranges(1, 4)
    (5, [2, 10], [(3, 4), (10, 12)])
    """

    def __init__(self, starts: np.ndarray, stops: np.ndarray) -> None:
        kept = stops > starts
        self.starts = np.asarray(starts, dtype=np.int64)[kept]
        self.stops = np.asarray(stops, dtype=np.int64)[kept]
        self._offsets = np.cumsum(np.append(0, self.stops - self.starts))

    @classmethod
    def all(cls, n: int) -> RowSet:
        return cls(np.array([0]), np.array([n]))

    @classmethod
    def where(cls, mask: np.ndarray) -> RowSet:
        """Return the rows where ``mask`` (n,) is true."""
        edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
        return cls(edges[::2], edges[1::2])

    def complement(self, n: int) -> RowSet:
        return RowSet(np.append(0, self.stops), np.append(self.starts, n))

    def __len__(self) -> int:
        return int(self._offsets[-1])

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Return the row numbers (m,) of positions (m,)."""
        inside = np.searchsorted(self._offsets, positions, side="right") - 1
        return self.starts[inside] + positions - self._offsets[inside]

    def ranges(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Return the ranges of rows at positions ``start..stop-1``."""
        ranges = []
        index = int(np.searchsorted(self._offsets, start, side="right")) - 1
        while start < stop:
            end = min(stop, int(self._offsets[index + 1]))
            first = int(self.starts[index]) + start - int(self._offsets[index])
            ranges.append((first, first + end - start))
            start, index = end, index + 1
        return ranges


def hold_out(n: int, fraction: float, seed: int, groups: np.ndarray | None = None) -> tuple[RowSet, RowSet]:
    """Return training and held-out rows; with fraction 0 both are all rows.

    Without groups the held-out rows are up to 32 contiguous blocks, one at a random position in each equal
    part of the data.  With ``groups`` (n,) they are whole groups, drawn at random until they hold enough
    rows.

    Raises:
        ValueError: no row would be left to train on.

    >>> train, held_out = hold_out(100, 0.1, seed=0)
    >>> len(train), len(held_out)
    (90, 10)
    """
    if fraction == 0:
        return RowSet.all(n), RowSet.all(n)
    if groups is None:
        size = max(1, round(n * fraction))
        generator = np.random.default_rng(seed)
        blocks = min(HELD_OUT_BLOCKS, size)
        edges = np.linspace(0, n, blocks + 1).astype(np.int64)
        sizes = np.diff(np.linspace(0, size, blocks + 1).astype(np.int64))
        room = np.maximum(np.diff(edges) - sizes, 0)
        starts = edges[:-1] + (generator.random(blocks) * (room + 1)).astype(np.int64)
        held = RowSet(starts, np.minimum(starts + sizes, edges[1:]))
    else:
        _, group_of, counts = np.unique(groups, return_inverse=True, return_counts=True)
        held = RowSet.where(held_out_groups(counts, fraction, seed)[group_of])
    if len(held) >= n:
        what = f"{n} rows" if groups is None else f"{n} rows in {len(np.unique(groups))} groups"
        raise ValueError(
            f"data.val_fraction={fraction:g} of {what} leaves no row to train on; lower it, or set it to 0"
        )
    return held.complement(n), held


def held_out_groups(counts: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return which groups (g,) are held out, given the number of rows of each (g,): groups are drawn at
    random until they hold enough rows."""
    size = max(1, round(int(counts.sum()) * fraction))
    order = np.random.default_rng(seed).permutation(len(counts))
    enough = int(np.searchsorted(np.cumsum(counts[order]), size)) + 1
    chosen = np.zeros(len(counts), dtype=bool)
    chosen[order[:enough]] = True
    return chosen


def shuffled(positions: np.ndarray, n: int, *key: int) -> np.ndarray:
    """Map ``positions`` by a pseudo-random permutation of ``0..n-1`` that ``key`` selects, such as
    (seed, epoch).

    A Feistel network on the next even number of bits, iterated until the value is below n (Black & Rogaway,
    "Ciphers with arbitrary finite domains", 2002).

    >>> sorted(shuffled(np.arange(10), 10, 7).tolist()) == list(range(10))
    True
    """
    half = np.uint64(max(1, ((max(n, 2) - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    keys = np.random.SeedSequence(key).generate_state(FEISTEL_ROUNDS, dtype=np.uint64)

    def encipher(x: np.ndarray) -> np.ndarray:
        left, right = x >> half, x & mask
        for key in keys:
            left, right = right, left ^ (_mix(right + key) & mask)
        return (left << half) | right

    out = encipher(positions.astype(np.uint64))
    while len(outside := np.flatnonzero(out >= np.uint64(n))):
        out[outside] = encipher(out[outside])
    return out.astype(np.int64)


def scattered_stretches(n: int, count: int, most: int, longest: int, *key: int) -> list[tuple[int, int]]:
    """Choose about ``count`` of the positions ``0..n-1``, in at most ``most`` stretches [start, stop) of
    equal length at random positions, in order; if n <= count all positions, in stretches of at most
    ``longest``."""
    if count >= n:
        return [(start, min(start + longest, n)) for start in range(0, n, longest)]
    length = -(-count // min(most, count))
    number = min(-(-count // length), n // length)
    starts = np.sort(shuffled(np.arange(number), n // length, *key)) * length
    return [(int(start), int(start) + length) for start in starts]


def numbered_apart(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Renumber groups that are numbered within each shard, so that no two shards share a number."""
    numbered, before = [], 0
    for groups in parts:
        names, number = np.unique(groups, return_inverse=True)
        numbered.append(number + before)
        before += len(names)
    return np.concatenate(numbered)


def _mix(x: np.ndarray) -> np.ndarray:
    """Spread every bit over the word (Steele, Lea & Flood's SplitMix64 finaliser, 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
