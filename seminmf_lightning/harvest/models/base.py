"""Base class of model libraries, which load a network, its feed, and a description of both."""

from __future__ import annotations

import importlib.util
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from seminmf_lightning.harvest.adapters import Feed
from seminmf_lightning.harvest.models.weights import NotLoaded


class Loaded(NamedTuple):
    """A network in evaluation mode, its feed, and a plain description of both for the manifest."""

    network: nn.Module
    feed: Feed
    description: dict[str, Any]
    not_loaded: NotLoaded = NotLoaded()
    """Weights that the checkpoint lacks; they are NaN, so no layer that depends on them is harvested."""


class Model(ABC):
    """A model library: one file with a dataclass that extends this one, and one YAML in
    ``configs/harvest/model/``."""

    @abstractmethod
    def load(self, kind: str) -> Loaded:
        """Load the network and its feed for examples of one kind (image, text or tensor).

        Raises:
            ModuleNotFoundError: the library is not installed; the message has the pip command.
            ValueError, OSError: there is no such model, or it does not take this kind.
        """


def local_path(path: str) -> str:
    """Turn ``package:<module>/<folder>`` into a folder of an installed package; leave other paths and hub
    names.

    >>> local_path("bert-base-uncased")
    'bert-base-uncased'

    Raises:
        ModuleNotFoundError, FileNotFoundError: there is no such package or folder.
    """
    if not path.startswith("package:"):
        return os.path.expanduser(path)
    module, _, rest = path.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"model.path={path!r}: the package {module!r} is not installed: "
            f"pip install {module.replace('_', '-')}"
        )
    folder = Path(next(iter(spec.submodule_search_locations))) / rest
    if not folder.exists():
        raise FileNotFoundError(f"model.path={path!r}: {folder} does not exist")
    return str(folder)


def only(kind: str, accepted: tuple[str, ...], model: str) -> None:
    """Raise ValueError unless the model takes examples of this kind."""
    if kind not in accepted:
        raise ValueError(f"model={model} takes {' or '.join(accepted)} inputs, but these inputs are {kind!r}")


def plain(value: Any) -> Any:
    """Return settings as a manifest keeps them: numbers, texts, lists and mappings; others by their name.

    >>> plain({"size": (8, 8), "act_layer": nn.GELU})
    {'size': [8, 8], 'act_layer': 'GELU'}
    """

    def convert(other: Any) -> Any:
        if isinstance(other, Mapping):
            return dict(other)
        if isinstance(other, Iterable) and not isinstance(other, type):
            return list(other)
        return other.__qualname__ if hasattr(other, "__qualname__") else type(other).__qualname__

    return json.loads(json.dumps(value, default=convert))
