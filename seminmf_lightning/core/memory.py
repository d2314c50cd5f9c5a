"""Refuse what cannot fit the memory there is, before data is read."""

from __future__ import annotations

import os


def total_memory() -> float:
    """Return the bytes of memory of this machine; infinity where it does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return float("inf")


def refuse_beyond_memory(needed: float, what: str, advice: str) -> None:
    """Raise a ValueError if ``what`` needs more bytes than the machine has.

    >>> refuse_beyond_memory(1e18, "sums", "lower nb_concepts")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: sums need 1,000,000,000.0 GB of memory, this machine has ... GB: lower nb_concepts
    """
    total = total_memory()
    if needed > total:
        raise ValueError(
            f"{what} need {needed / 1e9:,.1f} GB of memory, this machine has {total / 1e9:,.1f} GB: {advice}"
        )
