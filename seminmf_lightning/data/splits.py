"""Which rows, in which order: sets of row numbers that take no memory a row.

A held-out set is a few ranges; a shuffled pass is a keyed bijection worked out for the batch at hand.
Neither grows with the number of rows, and both can be entered anywhere, so that a resumed pass seeks instead
of replaying.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

HELD_OUT_BLOCKS = 32
FEISTEL_ROUNDS = 6


class RowSet:
    """Sorted, disjoint, half-open ranges of rows.  Position p = 0..len-1 stands for the p-th row of the
    set."""

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
        """The rows at which ``mask`` (n,) is true."""
        edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
        return cls(edges[::2], edges[1::2])

    def complement(self, n: int) -> RowSet:
        return RowSet(np.append(0, self.stops), np.append(self.starts, n))

    def __len__(self) -> int:
        return int(self._offsets[-1])

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Row numbers (m,) of positions (m,)."""
        inside = np.searchsorted(self._offsets, positions, side="right") - 1
        return self.starts[inside] + positions - self._offsets[inside]

    def ranges(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The ranges of rows that positions ``start..stop-1`` are made of."""
        found = []
        index = int(np.searchsorted(self._offsets, start, side="right")) - 1
        while start < stop:
            end = min(stop, int(self._offsets[index + 1]))
            first = int(self.starts[index]) + start - int(self._offsets[index])
            found.append((first, first + end - start))
            start, index = end, index + 1
        return found


def hold_out(n: int, fraction: float, seed: int, groups: np.ndarray | None = None) -> tuple[RowSet, RowSet]:
    """Training and held-out rows; with fraction 0 both are all rows.

    Without groups the held-out rows are up to 32 contiguous blocks, one at a random place in each stretch of
    the data. With groups (n,) they are whole groups in random order, until there are enough.

    Raises:
        ValueError: nothing would be left on one of the two sides.
    """
    if fraction == 0:
        return RowSet.all(n), RowSet.all(n)
    if groups is None:
        wanted = max(1, round(n * fraction))
        generator = np.random.default_rng(seed)
        blocks = min(HELD_OUT_BLOCKS, wanted)
        edges = np.linspace(0, n, blocks + 1).astype(np.int64)
        sizes = np.diff(np.linspace(0, wanted, blocks + 1).astype(np.int64))
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
    """Which groups are held out (g,), given the rows of each (g,): in random order, until there are rows
    enough."""
    wanted = max(1, round(int(counts.sum()) * fraction))
    order = np.random.default_rng(seed).permutation(len(counts))
    enough = int(np.searchsorted(np.cumsum(counts[order]), wanted)) + 1
    chosen = np.zeros(len(counts), dtype=bool)
    chosen[order[:enough]] = True
    return chosen


def shuffled(positions: np.ndarray, n: int, *key: int) -> np.ndarray:
    """Where each of ``positions`` goes in a pseudo-random permutation of ``0..n-1`` chosen by the key: (seed,
    epoch), say.

    A Feistel network on the next even number of bits, walked along its cycle until it is back below n
    (Black & Rogaway, "Ciphers with arbitrary finite domains", 2002).
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
    """About ``count`` of the positions ``0..n-1``, in up to ``most`` stretches [start, stop) of one length at
    random places, in order; all of them, in stretches of ``longest``, if there are no more."""
    if count >= n:
        return [(start, min(start + longest, n)) for start in range(0, n, longest)]
    length = -(-count // min(most, count))
    number = min(-(-count // length), n // length)
    places = np.sort(shuffled(np.arange(number), n // length, *key)) * length
    return [(int(place), int(place) + length) for place in places]


def numbered_apart(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Groups that are numbered within their shard, numbered anew so that shards share none."""
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
