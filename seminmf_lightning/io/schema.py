"""Whether data that was read has the form that its readers count on: keys, types, shapes."""

from __future__ import annotations

from collections.abc import Mapping
from sys import float_info
from typing import Any

import torch
from torch import Tensor

from seminmf_lightning.io.untrusted import Refused

LARGEST_FLOAT = float_info.max


def conform(path: object, found: Any, form: Any, at: str = "") -> None:
    """Raise Refused unless ``found`` has the form asked for.

    A form is ``{"key": form}`` (``"key?"`` may be missing), ``{str: form}`` for any keys, ``[form]`` for any
    length, or a type: ``int`` is a whole number from 0 up, ``float`` any finite number.
    """
    where = f"{path}: {at}" if at else f"{path}"
    if isinstance(form, dict):
        if not isinstance(found, dict):
            raise Refused(f"{where}: expected an object, found {_short(found)}")
        for key, wanted in form.items():
            if key is str:
                for name, value in found.items():
                    conform(path, value, wanted, f"{at}[{_short(name)}]")
            elif (name := key.removesuffix("?")) in found:
                conform(path, found[name], wanted, f"{at}.{name}" if at else name)
            elif name == key:
                raise Refused(f"{where}: no {name!r}; found {_short(found)}")
    elif isinstance(form, list):
        if not isinstance(found, list):
            raise Refused(f"{where}: expected a list, found {_short(found)}")
        for number, value in enumerate(found):
            conform(path, value, form[0], f"{at}[{number}]")
    elif not _is(found, form):
        accepted = {
            int: "a whole number from 0 up",
            float: "a finite number",
            str: "a text",
            bool: "true or false",
        }
        raise Refused(f"{where}: expected {accepted.get(form, form.__name__)}, found {_short(found)}")


def same_form(path: object, found: Any, like: Any, at: str) -> None:
    """Raise Refused unless ``found`` could stand for ``like``: tensors of its shape and type, numbers and
    mappings where it has them; where it has None, a number or None."""
    if isinstance(like, Tensor):
        if not isinstance(found, Tensor) or found.layout != torch.strided:
            raise Refused(f"{path}: {at}: expected a tensor, found {_short(found)}")
        if found.shape != like.shape or found.dtype != like.dtype:
            raise Refused(
                f"{path}: {at} is {found.dtype} {tuple(found.shape)}; this run needs {like.dtype} {tuple(like.shape)}"
            )
        if not found.isfinite().all():
            raise Refused(f"{path}: {at} holds NaN or Inf")
    elif isinstance(like, Mapping):
        if not isinstance(found, Mapping) or set(found) != set(like):
            raise Refused(f"{path}: {at}: expected {', '.join(map(str, like))}; found {_short(found)}")
        for name, value in like.items():
            same_form(path, found[name], value, f"{at}.{name}")
    elif isinstance(like, tuple):
        if not isinstance(found, tuple | list) or not all(_is(value, float) for value in found):
            raise Refused(f"{path}: {at}: expected a list of numbers, found {_short(found)}")
    else:
        accepted = (
            (int, float, type(None))
            if like is None
            else (int, float)
            if isinstance(like, float)
            else (type(like),)
        )
        if not isinstance(found, accepted) or isinstance(found, bool) is not isinstance(like, bool):
            raise Refused(f"{path}: {at}: expected a value like {like!r}, found {_short(found)}")


def _is(found: Any, form: type) -> bool:
    if form is int:
        return isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 2**63
    return is_finite(found) if form is float else isinstance(found, form)


def is_finite(found: Any) -> bool:
    """Whether it is a number that a float can hold."""
    return isinstance(found, int | float) and not isinstance(found, bool) and abs(found) <= LARGEST_FLOAT


def _short(value: Any) -> str:
    """A value for a message: of what holds others no more than what it is."""
    if isinstance(value, Mapping):
        return f"an object of {', '.join(map(_short, list(value)[:8])) or 'nothing'}"
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."
