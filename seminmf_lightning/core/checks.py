"""Validation of arguments: one line per argument in a constructor, none inside the maths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any


def whole_number(name: str, value: Any, minimum: int) -> int:
    """``value`` as an int of at least ``minimum``, or a TypeError / ValueError that says what is accepted."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r} ({type(value).__name__})")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return int(value)


def real_number(
    name: str, value: Any, minimum: float, *, exclusive: bool = False, below: float = math.inf
) -> float:
    """``value`` as a finite float in [minimum, below), or (minimum, below) if ``exclusive``."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    value = float(value)
    too_low = value <= minimum if exclusive else value < minimum
    if not math.isfinite(value) or too_low or value >= below:
        accepted = f"{'above' if exclusive else 'at least'} {minimum:g}" + (
            "" if below == math.inf else f" and below {below:g}"
        )
        raise ValueError(f"{name} must be {accepted}, got {value}")
    return value


def one_of(name: str, value: Any, accepted: tuple[str, ...]) -> str:
    """``value`` if it is one of the accepted words."""
    if not isinstance(value, str):
        raise TypeError(
            f"{name} must be one of {', '.join(accepted)}; got {value!r} ({type(value).__name__})"
        )
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(accepted)}; got {value!r}")
    return value


def known_names(kind: str, names: Iterable[str], accepted: Sequence[str]) -> None:
    """Raise a TypeError that suggests the nearest accepted name for the first of ``names`` that is unknown.

    >>> known_names("setting", ["tolerance"], ["tol", "seed"])
    Traceback (most recent call last):
    TypeError: unknown setting 'tolerance'; did you mean 'tol'? accepted: tol, seed
    """
    for name in names:
        if name not in accepted:
            raise TypeError(unknown_name(kind, name, accepted))


def unknown_name(kind: str, name: str, accepted: Sequence[str]) -> str:
    """Return the message for an unknown name: the nearest accepted one if any is near, and all of them."""
    near = get_close_matches(name, accepted, 1, cutoff=0.5)
    suggestion = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {kind} {name!r}{suggestion} accepted: {', '.join(accepted) or 'none'}"
