"""Load weights into a network, mark those that are missing, and compute a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from seminmf_lightning.io.untrusted import Refused, file_size, refusing

SAMPLED_VALUES = 64
"""Values per tensor that the digest depends on."""
STATE_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys under which training scripts put a state dict into a checkpoint."""
PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that wrappers of torch (data parallel, compile) add to every name."""
LISTED = 4
"""Most names listed in a message."""


class NotLoaded(NamedTuple):
    """Weights that a checkpoint does not hold, and names in it that the network does not have."""

    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"the checkpoint lacks {_listed(self.missing)}"
        if self.unused:
            text += f", and holds weights that this network does not have: {_listed(self.unused)}"
        return text


def load_weights(network: nn.Module, path: str) -> NotLoaded:
    """Load a file of weights, as :func:`read_weights` reads it, into a network.

    Weights that the file lacks, such as those of a head, become NaN: see :func:`mark_missing`.

    Raises:
        FileNotFoundError, ValueError: it does not exist, is not such a file, or belongs to another network.
    """
    state, own = read_weights(path), network.state_dict()
    if not set(state) & set(own):
        raise Refused(
            f"{path}: none of its {len(state)} weights belongs to this {type(network).__name__}: it holds "
            f"{_listed(state)}; the network has {_listed(own)}"
        )
    with refusing(path, f"a file of weights of {type(network).__name__}"):
        result = network.load_state_dict(state, strict=False)
    return mark_missing(network, result.missing_keys, result.unexpected_keys, path)


def read_weights(path: str) -> dict[str, Tensor]:
    """Read a safetensors file or a state dict of ``torch.save``, bare or in a checkpoint; no code is run.

    Raises:
        FileNotFoundError, ValueError: it does not exist, or is not such a file.
    """
    file = Path(path).expanduser()
    file_size(file)
    with refusing(file, "a file of weights"):
        is_safetensors = file.suffix.lower() == ".safetensors"
        content: Any = (
            load_file(file) if is_safetensors else torch.load(file, map_location="cpu", weights_only=True)
        )
        state = next((content[key] for key in STATE_KEYS if key in content), content)
        return {_without_prefix(name): value for name, value in state.items()}


def mark_missing(network: nn.Module, missing: Iterable[str], unused: Iterable[str], path: str) -> NotLoaded:
    """Set weights that were not loaded to NaN, so that no layer that depends on them can be harvested.

    An unused head may be missing; a layer that depends on a missing weight has NaN in its rows.

    Raises:
        ValueError: the checkpoint holds further weights of a layer that has weights here, such as adapters
            or scales of a quantisation: without them its outputs would differ.
    """
    tensors: dict[str, Tensor] = dict(network.named_parameters(remove_duplicate=False))
    tensors |= dict(network.named_buffers(remove_duplicate=False))
    missing = set(missing)
    loaded = {tensor.data_ptr() for name, tensor in tensors.items() if name not in missing}
    lacking = [
        name for name in tensors
        if name in missing and (tensors[name].is_floating_point() or tensors[name].is_complex())
        and tensors[name].data_ptr() not in loaded  # a tied weight has two names
    ]  # fmt: skip
    modules = dict(network.named_modules())
    unused = tuple(sorted(unused))
    for name in unused:
        owner = name
        while owner not in modules:
            owner = owner.rpartition(".")[0]
        is_leaf = not list(modules[owner].children()) and list(modules[owner].parameters())
        if is_leaf and owner and not name.endswith("num_batches_tracked"):
            raise ValueError(
                f"{path}: {name} belongs to a {type(modules[owner]).__name__} that has no such weight "
                "here, so its outputs would differ; merge adapters and quantised weights into the "
                "checkpoint"
            )
    with torch.no_grad():
        for name in lacking:
            tensors[name].fill_(torch.nan)
    return NotLoaded(tuple(lacking), unused)


def _without_prefix(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    return name


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def weights_digest(network: nn.Module) -> str:
    """Return a short digest of all names, shapes and types, and of 64 values of each tensor.

    >>> weights_digest(nn.Linear(2, 2)) == weights_digest(nn.Linear(2, 3))
    False
    """
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        flat = tensor.detach().reshape(-1)
        sampled = flat[:: max(1, flat.numel() // SAMPLED_VALUES)][:SAMPLED_VALUES]
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(sampled.double().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
