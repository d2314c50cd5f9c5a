"""Checks at the door: one line each in the constructors, none inside the maths."""

from __future__ import annotations

import math
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
