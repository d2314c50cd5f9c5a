"""Find an algorithm by the name of its file: no registry to edit.

``build(Solver, {"name": "hals", "sweeps": 2})`` imports every file beside the one that defines ``Solver`` and
makes the subclass whose file is ``hals.py``.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def available(base: type[T]) -> dict[str, type[T]]:
    """The concrete subclasses of ``base`` in its package, by the name of their file."""
    package = importlib.import_module(base.__module__.rpartition(".")[0])
    for found in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{found.name}")
    subclasses, pending = {}, [base]
    while pending:
        for subclass in pending.pop().__subclasses__():
            pending.append(subclass)
            if not inspect.isabstract(subclass):
                subclasses[subclass.__module__.rpartition(".")[2]] = subclass
    return dict(sorted(subclasses.items()))


def build(base: type[T], spec: str | Mapping[str, Any] | T) -> T:
    """Make an algorithm from its name, from ``{"name": ..., **arguments}``, or pass one through.

    Raises:
        TypeError: neither of the three, or an argument the algorithm does not have.
        ValueError: no algorithm of that name, or an argument with a bad value.
    """
    kind = base.__name__.lower()
    if isinstance(spec, base):
        return spec
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise TypeError(f"{kind} must be a name, a mapping with a 'name', or a {base.__name__}; got {spec!r}")
    found = available(base)
    arguments = {key: without_numpy(value) for key, value in spec.items() if key != "name"}
    if spec["name"] not in found:
        raise ValueError(f"unknown {kind} {spec['name']!r}; available: {', '.join(found)}")
    chosen = found[spec["name"]]
    accepted = [field.name for field in fields(chosen)]  # type: ignore[arg-type]
    if unknown := sorted(set(arguments) - set(accepted)):
        raise TypeError(
            f"{kind} {spec['name']!r} has no argument {', '.join(unknown)}; it accepts {', '.join(accepted)}"
        )
    return chosen(**arguments)


def spec_of(algorithm: Any) -> dict[str, Any]:
    """The plain mapping that :func:`build` turns into an equal algorithm."""
    name = type(algorithm).__module__.rpartition(".")[2]
    return {"name": name} | {
        field.name: without_numpy(getattr(algorithm, field.name)) for field in fields(algorithm)
    }


def without_numpy(value: Any) -> Any:
    """Python's own number where ``value`` is one of numpy's, as searches over ``np.logspace`` give: it
    prints, compares and serialises like any other."""
    return value.item() if isinstance(value, np.generic) else value
