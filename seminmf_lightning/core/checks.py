"""Validation of arguments: one line per argument in a constructor, none inside the maths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any


def whole_number(name: str, value: Any, minimum: int) -> int:
    """Return ``value`` as an int of at least ``minimum``.

    Raises:
        TypeError, ValueError: it is not; the message says what is accepted.

    >>> whole_number("seed", 3, 0)
    3
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r} ({type(value).__name__})")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return int(value)


def real_number(
    name: str, value: Any, minimum: float, *, exclusive: bool = False, below: float = math.inf,
    at_most: float = math.inf,
) -> float:  # fmt: skip
    """Return ``value`` as a finite float of at least (``exclusive``: above) ``minimum``, within its bound.

    Raises:
        TypeError, ValueError: it is not; the message says what is accepted.

    >>> real_number("tol", 1e-4, 0)
    0.0001
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    number = float(value)
    too_low = number <= minimum if exclusive else number < minimum
    if not math.isfinite(number) or too_low or number >= below or number > at_most:
        upper = "" if below == math.inf else f" and below {below:g}"
        upper += "" if at_most == math.inf else f" and at most {at_most:g}"
        raise ValueError(
            f"{name} must be {'above' if exclusive else 'at least'} {minimum:g}{upper}, got {number}"
        )
    return number


def one_of(name: str, value: Any, accepted: Sequence[str]) -> str:
    """Return ``value`` if it is one of the ``accepted`` words.

    Raises:
        TypeError, ValueError: it is not; the message lists them and suggests the nearest.

    >>> one_of("normalize", "centre", ("none", "scale", "center"))
    Traceback (most recent call last):
    ValueError: normalize must be one of none, scale, center; got 'centre'; did you mean 'center'?
    """
    words = f"{name} must be one of {', '.join(accepted)}; got {value!r}"
    if not isinstance(value, str):
        raise TypeError(f"{words} ({type(value).__name__})")
    if value not in accepted:
        raise ValueError(words + did_you_mean(value, accepted))
    return value


def known_names(kind: str, names: Iterable[str], accepted: Sequence[str]) -> None:
    """Raise a TypeError for the first of ``names`` that is not accepted.

    >>> known_names("setting", ["tolerance"], ["tol", "seed"])
    Traceback (most recent call last):
    TypeError: unknown setting 'tolerance'; did you mean 'tol'? accepted: tol, seed
    """
    for name in names:
        if name not in accepted:
            raise TypeError(unknown_name(kind, name, accepted))


def unknown_name(kind: str, name: str, accepted: Sequence[str]) -> str:
    """Return the message for an unknown name: the nearest accepted one, if any is near, and all of them."""
    suggestion = did_you_mean(name, accepted) or ";"
    return f"unknown {kind} {name!r}{suggestion} accepted: {', '.join(accepted) or 'none'}"


def did_you_mean(name: str, accepted: Sequence[str]) -> str:
    """Return ``; did you mean ...?`` with the nearest accepted name, or nothing if none is near."""
    near = get_close_matches(name, accepted, 1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
