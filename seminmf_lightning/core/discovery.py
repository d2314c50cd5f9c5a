"""Find an algorithm by the name of its file or entry point; there is no list to edit.

``build(Solver, {"name": "hals", "sweeps": 2})`` imports every file beside the one that defines ``Solver`` and
makes the subclass whose file is ``hals.py``.  Other installed packages add theirs under the entry-point group
``seminmf_lightning.solvers`` (or ``encoders``, ``inits``, ``metrics``, ``sources``, ``models``, ``inputs``)::

    [project.entry-points."seminmf_lightning.solvers"]
    frank_wolfe = "their_package.frank_wolfe:FrankWolfe"
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Mapping
from dataclasses import fields
from importlib import metadata
from typing import Any, TypeVar

import numpy as np

from seminmf_lightning.core.checks import known_names, unknown_name

T = TypeVar("T")

_loaded_groups: set[str] = set()
_plugin_names: dict[type, str] = {}
"""Entry-point name of each class of another package."""


def available(base: type[T]) -> dict[str, type[T]]:
    """Return the concrete subclasses of ``base`` by name: of its package, of plugins, or imported.

    >>> from seminmf_lightning.inits import Init
    >>> list(available(Init))
    ['data', 'random', 'svd']
    """
    package = base.__module__.rpartition(".")[0]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
    _load_plugins(base, f"seminmf_lightning.{package.rpartition('.')[2]}")
    classes, pending = {}, [base]
    while pending:
        for subclass in pending.pop().__subclasses__():
            pending.append(subclass)
            # A class from elsewhere never replaces one of this package.
            own = subclass.__module__.startswith(f"{package}.")
            if not inspect.isabstract(subclass) and (own or name_of(subclass) not in classes):
                classes[name_of(subclass)] = subclass
    return dict(sorted(classes.items()))


def _load_plugins(base: type[Any], group: str) -> None:
    """Import the entry points of a group once; warn of each one that fails and leave it out."""
    if group in _loaded_groups:
        return
    _loaded_groups.add(group)
    for entry in metadata.entry_points(group=group):
        try:
            loaded = entry.load()
            if not (inspect.isclass(loaded) and issubclass(loaded, base)):
                raise TypeError(f"not a subclass of {base.__module__}.{base.__name__}")
            _plugin_names[loaded] = entry.name
        except Exception as error:  # a plugin may raise anything on import
            source = f" of {entry.dist.name}" if entry.dist else ""
            warnings.warn(
                f"{group}: left out the plugin {entry.name} = {entry.value}{source} "
                f"({type(error).__name__}: {error}); repair or uninstall it",
                stacklevel=3,
            )


def default_for(base: type[Any], purpose: str) -> str:
    """Return the name of this package's algorithm whose ``default_for`` is ``purpose``.

    >>> from seminmf_lightning.encoders import Encoder
    >>> default_for(Encoder, "unpenalised")
    'least_squares'
    """
    package = base.__module__.rpartition(".")[0]
    own = (name for name, kind in available(base).items() if kind.__module__ == f"{package}.{name}")
    return next(name for name in own if available(base)[name].default_for == purpose)


def build(base: type[T], spec: str | Mapping[str, Any] | T) -> T:
    """Make an algorithm from its name or from ``{"name": ..., **arguments}``; return an instance unchanged.

    Raises:
        TypeError: ``spec`` is none of these, or has an argument that the algorithm does not take.
        ValueError: there is no algorithm of that name, or an argument has a bad value.

    >>> from seminmf_lightning.solvers import Solver
    >>> build(Solver, {"name": "hals", "sweeps": 2}).sweeps
    2
    """
    kind = base.__name__.lower()
    if isinstance(spec, base):
        return spec
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise TypeError(f"{kind} must be a name, a mapping with a 'name', or a {base.__name__}; got {spec!r}")
    classes, name = available(base), spec["name"]
    if name not in classes:
        raise ValueError(unknown_name(kind, name, list(classes)))
    arguments = {key: without_numpy(value) for key, value in spec.items() if key != "name"}
    accepted = [field.name for field in fields(classes[name])]  # type: ignore[arg-type]
    known_names(f"argument of {kind} {name!r}", arguments, accepted)
    return classes[name](**arguments)


def name_of(algorithm: object) -> str:
    """Return the name by which :func:`build` finds ``algorithm``, a class or an instance of it."""
    kind = algorithm if inspect.isclass(algorithm) else type(algorithm)
    return _plugin_names.get(kind) or kind.__module__.rpartition(".")[2]


def spec_of(algorithm: Any) -> dict[str, Any]:
    """Return the plain mapping from which :func:`build` makes an equal algorithm.

    >>> from seminmf_lightning.inits.svd import SVD
    >>> spec_of(SVD())
    {'name': 'svd'}
    """
    arguments = {field.name: without_numpy(getattr(algorithm, field.name)) for field in fields(algorithm)}
    return {"name": name_of(algorithm)} | arguments


def without_numpy(value: Any) -> Any:
    """Return Python's own number for a numpy scalar: it prints, compares and serialises like any other."""
    return value.item() if isinstance(value, np.generic) else value
