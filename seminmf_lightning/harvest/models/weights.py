"""Weights of a network: load a file of them, and tell one set from another."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from seminmf_lightning.io.untrusted import file_size, refusing

SAMPLED_VALUES = 64
"""Values per tensor that the digest depends on."""
STATE_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys under which training scripts put a state dict into a checkpoint."""


def load_weights(network: nn.Module, path: str) -> None:
    """Load a file of weights, as :func:`read_weights` reads it, into a network.

    Raises:
        FileNotFoundError, ValueError: it does not exist, is not such a file, or belongs to another network.
    """
    with refusing(path, f"a file of weights of {type(network).__name__}"):
        network.load_state_dict(read_weights(path))


def read_weights(path: str) -> dict[str, torch.Tensor]:
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
        return {name.removeprefix("module."): value for name, value in state.items()}


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
