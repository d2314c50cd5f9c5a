"""Change what one layer returns, or is given, for as long as a context lasts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seminmf_lightning.harvest.activations import describe, first_tensor, named_arguments, only_tensor
from seminmf_lightning.harvest.layers import Layer, match_layers

Change = Callable[[Tensor], Tensor | None]
"""Activations to new ones of the same shape; None leaves them alone."""


@dataclass
class Visits:
    """What a network did while its layer was hooked."""

    passes: int = 0
    """Forward passes of the whole network."""
    calls: int = 0
    """Calls of the layer's module within the present pass."""
    inside: bool = False
    """Whether a pass of the whole network is under way."""
    reached: int = 0
    """Calls that were changed."""


def find_layer(network: nn.Module, layer: str) -> Layer:
    """Return the one layer that a name stands for.

    Raises:
        TypeError: ``network`` is no module, or ``layer`` no name.
        ValueError: no layer of that name (the nearest are listed), several, or compiled code around it, which
            may call no hooks.

    >>> str(find_layer(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), "0:input"))
    '0:input'
    """
    if not isinstance(network, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(network).__name__}")
    if not isinstance(layer, str):
        raise TypeError(f"layer must be the dotted name of a module, got {type(layer).__name__}")
    _refuse_compiled(network, "the model")
    found = match_layers(network, layer)
    if len(found) != 1:
        names = ", ".join(map(str, found[:4]))
        raise ValueError(f"layer {layer!r} names {len(found)} layers, such as {names}; give one of them")
    parts = found[0].name.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        _refuse_compiled(network.get_submodule(name), f"{name!r}")
    return found[0]


def _refuse_compiled(module: nn.Module, name: str) -> None:
    compiled = type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None
    if compiled or isinstance(module, torch.jit.ScriptModule):
        cure = "attach to the module itself, model._orig_mod" if hasattr(module, "_orig_mod") else (
            "attach to a model that is not"
        )  # fmt: skip
        raise ValueError(f"{name} is compiled, and compiled code may call no hooks: {cure}")


@contextmanager
def changed(network: nn.Module, layer: Layer, change: Change) -> Iterator[Visits]:
    """Let ``change`` see, and replace, the activations of a layer; hooks go however the body ends.

    A layer ``name@1`` is the second call within a forward pass of ``network``.  Called outside of one, by
    itself or by gradient checkpointing, a module's call counts as the first.

    >>> network = nn.Sequential(nn.Identity(), nn.ReLU())
    >>> with changed(network, Layer("0"), lambda x: x + 1) as visits:
    ...     network(torch.zeros(2)), visits.reached
    (tensor([1., 1.]), 1)
    >>> network(torch.zeros(2))
    tensor([0., 0.])
    """
    visits, module = Visits(), network.get_submodule(layer.name)

    def begin(*_: Any) -> None:
        visits.calls, visits.inside = 0, True

    def end(*_: Any) -> None:
        visits.inside, visits.passes = False, visits.passes + 1

    def is_turn() -> bool:
        number = visits.calls if visits.inside else 0
        visits.calls += 1
        return number == layer.call

    def new(old: Tensor | None, content: Any) -> Tensor | None:
        if old is None:
            verb = "is given" if layer.side == "input" else "returns"
            found = describe(content)
            cure = "give a batch that is not empty" if "an empty tensor" in found else "choose another"
            raise ValueError(f"layer {layer!s} {verb} {found}, not one tensor of activations; {cure}")
        visits.reached += 1
        return change(old)

    def on_output(_: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        if not is_turn():
            return None
        old = first_tensor(output)
        value = new(old, output)
        return None if value is None else replaced(output, old, value)

    def on_input(module: nn.Module, args: Any, kwargs: Any) -> Any:
        if not is_turn():
            return None
        arguments = named_arguments(module, args, kwargs)
        old = only_tensor(arguments)
        value = new(old, arguments)
        return None if value is None else (replaced(args, old, value), replaced(kwargs, old, value))

    handles = [
        network.register_forward_pre_hook(begin),
        network.register_forward_hook(end, always_call=True),
        module.register_forward_pre_hook(on_input, with_kwargs=True) if layer.side == "input"
        else module.register_forward_hook(on_output, with_kwargs=True),
    ]  # fmt: skip
    try:
        yield visits
    finally:
        for handle in handles:
            handle.remove()


def replaced(values: Any, old: Tensor | None, new: Tensor) -> Any:
    """Return ``values`` with ``new`` for ``old``: itself, or in a tuple, list or mapping, which is copied.

    >>> old = torch.zeros(1)
    >>> replaced((old, "cache"), old, torch.ones(1))
    (tensor([1.]), 'cache')
    """
    if values is old:
        return new
    if isinstance(values, Mapping):
        result: Any = copy.copy(values)
        for key, value in values.items():
            if value is old:
                result[key] = new
        return result
    parts = [new if value is old else value for value in values]
    return type(values)(*parts) if hasattr(values, "_fields") else type(values)(parts)
