"""Tell activations among what a module returns, or is given."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

PASSED_OVER = ("attn", "attention", "mask", "past_key_values", "cache", "loss")
"""Parts of keys whose tensors are not activations."""


def first_tensor(output: Any) -> Tensor | None:
    """Return the activations in a module's output: itself, or the first ones in a mapping or tuple.

    Losses (scalars), masks (boolean and whole numbers), complex numbers, and sparse, nested and empty tensors
    are not activations; values of a mapping whose keys name attention, masks or caches are skipped.

    >>> first_tensor({"attention_mask": torch.ones(2, 3), "last_hidden_state": torch.zeros(2, 3, 4)}).shape
    torch.Size([2, 3, 4])
    >>> first_tensor((torch.ones(2, dtype=torch.bool), torch.zeros(2, 3))).shape
    torch.Size([2, 3])
    >>> first_tensor(["text"]) is None
    True
    """
    return next(iter(_tensors(output)), None)


def only_tensor(arguments: Mapping[str, Any]) -> Tensor | None:
    """Return the activations among a module's arguments; None if there is not exactly one such tensor.

    What is no activation, as in :func:`first_tensor`, does not count, and tuples are not looked into.

    >>> only_tensor({"x": torch.zeros(2, 3), "attention_mask": torch.ones(2, 3), "position": (1, 2)}).shape
    torch.Size([2, 3])
    >>> only_tensor({"x": torch.zeros(2, 3), "y": torch.zeros(2, 3)}) is None
    True
    """
    tensors = _tensors(arguments)
    return tensors[0] if len(tensors) == 1 else None


def _tensors(values: Any) -> list[Tensor]:
    """Return the activations in a value, or in a list, tuple or mapping, but no deeper."""
    if isinstance(values, Mapping):
        values = [
            value for key, value in values.items() if not any(w in str(key).lower() for w in PASSED_OVER)
        ]
    values = values if isinstance(values, list | tuple) else [values]
    return [value for value in values if isinstance(value, Tensor) and _is_dense(value)]


def named_arguments(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name, so that a mask is known as one even by position."""
    names = [*inspect.signature(module.forward).parameters, *(f"argument {n}" for n in range(len(args)))]
    return dict(zip(names, args, strict=False)) | dict(kwargs)


def _is_dense(value: Tensor) -> bool:
    if value.is_nested or value.layout != torch.strided:
        return False
    return value.is_floating_point() and value.ndim > 0 and value.numel() > 0


def describe(output: Any) -> str:
    """Say what a module returned, or was given, for a message.

    >>> describe({"x": torch.zeros(2, 3), "n": 4})
    'dict of x: a tensor (2, 3), n: int'
    """
    if isinstance(output, Tensor):
        if _is_dense(output):
            return f"a tensor {tuple(output.shape)}"
        if output.is_nested or output.layout != torch.strided:
            return "a nested tensor" if output.is_nested else f"a tensor of layout {output.layout}"
        if output.ndim and not output.numel():
            return f"an empty tensor {tuple(output.shape)}"
        return f"numbers of type {output.dtype}" if output.ndim else "a scalar"
    if isinstance(output, Mapping):
        parts = ", ".join(f"{key}: {describe(value)}" for key, value in output.items())
        return f"{type(output).__name__} of {parts}"
    return type(output).__name__
