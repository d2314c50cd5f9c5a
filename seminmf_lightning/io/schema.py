"""Check that data read from a file has the expected keys, types and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from sys import float_info
from typing import Any

import torch
from torch import Tensor

from seminmf_lightning.io.untrusted import Refused

LARGEST_FLOAT = float_info.max
ACCEPTED = {int: "a whole number from 0 up", float: "a finite number", str: "a text", bool: "true or false"}


def conform(path: object, value: Any, form: Any, at: str = "") -> None:
    """Raise Refused unless ``value`` has the given form.

    A form is ``{"key": form}`` (``"key?"`` may be missing), ``{str: form}`` for any keys, ``[form]`` for any
    length, or a type: ``int`` is a whole number from 0 up, ``float`` any finite number.

    >>> conform("run.json", {"rows": -1}, {"rows": int})
    Traceback (most recent call last):
    seminmf_lightning.io.untrusted.Refused: run.json: rows: expected a whole number from 0 up, found -1
    """
    where = f"{path}: {at}" if at else f"{path}"
    if isinstance(form, dict):
        if not isinstance(value, dict):
            raise Refused(f"{where}: expected an object, found {_short(value)}")
        for key, part in form.items():
            if key is str:
                for name, entry in value.items():
                    conform(path, entry, part, f"{at}[{_short(name)}]")
            elif (name := key.removesuffix("?")) in value:
                conform(path, value[name], part, f"{at}.{name}" if at else name)
            elif name == key:
                raise Refused(f"{where}: no {name!r}; found {_short(value)}")
    elif isinstance(form, list):
        if not isinstance(value, list):
            raise Refused(f"{where}: expected a list, found {_short(value)}")
        for number, entry in enumerate(value):
            conform(path, entry, form[0], f"{at}[{number}]")
    elif not _is(value, form):
        raise Refused(f"{where}: expected {ACCEPTED.get(form, form.__name__)}, found {_short(value)}")


def same_form(path: object, value: Any, like: Any, at: str) -> None:
    """Raise Refused unless ``value`` can stand for ``like``: tensors of its shape and type (of any number of
    rows where it has none), numbers and mappings where it has them, a number or None where it has None."""
    where = f"{path}: {at}"
    if isinstance(like, Tensor):
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            raise Refused(f"{where}: expected a tensor, found {_short(value)}")
        same = value.shape == like.shape or (like.shape[:1] == (0,) and value.shape[1:] == like.shape[1:])
        if not same or value.dtype != like.dtype:
            needed = f"this run needs {like.dtype} {tuple(like.shape)}"
            raise Refused(f"{where} is {value.dtype} {tuple(value.shape)}; {needed}")
        # The sum needs no second tensor of this size; finite numbers may add up to infinity.
        if not value.sum().isfinite() and not value.isfinite().all():
            raise Refused(f"{where} holds NaN or Inf")
    elif isinstance(like, Mapping):
        if not isinstance(value, Mapping) or set(value) != set(like):
            raise Refused(f"{where}: expected {', '.join(map(str, like))}; found {_short(value)}")
        for name, part in like.items():
            same_form(path, value[name], part, f"{at}.{name}")
    elif isinstance(like, tuple):
        if not isinstance(value, tuple | list) or not all(_is(number, float) for number in value):
            raise Refused(f"{where}: expected a list of numbers, found {_short(value)}")
    else:
        number = (int, float, type(None)) if like is None else (int, float)
        kinds = number if like is None or isinstance(like, float) else (type(like),)
        if not isinstance(value, kinds) or isinstance(value, bool) is not isinstance(like, bool):
            raise Refused(f"{where}: expected a value like {like!r}, found {_short(value)}")


def is_finite(value: Any) -> bool:
    """Whether ``value`` is a number that a float can hold.

    >>> is_finite(2), is_finite(float("nan")), is_finite(10**400), is_finite(True)
    (True, False, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_FLOAT


def _is(value: Any, form: type) -> bool:
    if form is int:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
    return is_finite(value) if form is float else isinstance(value, form)


def _short(value: Any) -> str:
    """Describe a value in a message: containers by their type and first keys."""
    if isinstance(value, Mapping):
        return f"an object of {', '.join(map(_short, list(value)[:8])) or 'nothing'}"
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."
