"""When sparse training updates the dictionary: often at first, then after a share of the rows so far.

New rows change the sums by the share that they are of all rows, so that an update is worth as much after 512
rows of 4,096 as after 4,096 of 32,768.  On 98,304 rows of MiniLM (k = 512) the held-out objective is that of
an update every 512 rows (.2599; every 1,024 and 2,048 rows .2611 and .2629), in 0.6 of its time.
"""

from __future__ import annotations

UPDATE_ROWS, UPDATE_SHARE = 512, 0.25
"""Fewest rows between updates, and fewest as a share of the atoms: an update costs as much as encoding about
k / 4 rows, so that the work per row is linear in k."""
GROWTH, MOST_ROWS, UPDATES_PER_EPOCH = 0.125, 8192, 8
"""An update waits for this share of the rows so far, at most for that many rows and this part of an epoch."""


def fewest_rows(concepts: int) -> int:
    """Return the rows after which an update may come.

    >>> fewest_rows(512), fewest_rows(16_384)
    (512, 4096)
    """
    return max(UPDATE_ROWS, int(UPDATE_SHARE * concepts))


def longest_wait(fewest: int, epoch_rows: int | None = None) -> int:
    """Return the largest multiple of ``fewest`` rows that an update waits for; 1 at least."""
    most = 2 * fewest if fewest >= MOST_ROWS else MOST_ROWS
    if epoch_rows is not None:
        most = min(most, epoch_rows // UPDATES_PER_EPOCH)
    return max(1, most // fewest)


def wait_after(seen: int, longest: int) -> int:
    """Return the wait after ``seen`` rows; all three are multiples of the fewest rows.

    >>> [wait_after(seen, longest=8) for seen in (1, 8, 16, 40, 80)]
    [1, 1, 2, 5, 8]
    """
    return min(longest, max(1, int(GROWTH * seen)))
