"""Find layers by name, capture what they return, and stop the network after the last one.

A layer is a dotted path, ``encoder.layer.2``, or a glob in which ``*`` stands for one part of the path and
``**`` for any number of parts. ``name@1`` is the second call of a module that runs several times per forward
pass.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

SUGGESTIONS = 5
"""Names listed when a pattern matches nothing."""
CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
"""Modules that are never called."""
PASSED_OVER = ("attn", "attention", "mask", "past_key_values", "cache", "loss")
"""Parts of keys whose tensors are not activations."""


class NetworkError(ValueError):
    """The network itself failed before a requested layer."""


class Layer(NamedTuple):
    """One call of one module.

    >>> str(Layer("encoder.layer.2")), str(Layer("relu", 1))
    ('encoder.layer.2', 'relu@1')
    """

    name: str
    call: int = 0
    """0 is the first call of the module in a forward pass."""

    def __str__(self) -> str:
        return self.name if self.call == 0 else f"{self.name}@{self.call}"


class LayerOutputs(NamedTuple):
    """Shapes that one module returned in a forward pass."""

    name: str
    module: str
    """Name of its class."""
    shapes: list[tuple[int, ...] | None]
    """One per call; None where it returned no tensor."""


def match_layers(network: nn.Module, patterns: str | Sequence[str]) -> list[Layer]:
    """Return the layers that names and globs stand for, in the network's order.

    Raises:
        ValueError: a pattern matches nothing (the message lists the nearest names), or there is no pattern.

    >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> [str(layer) for layer in match_layers(network, ["1", "*"])]
    ['0', '1']
    """
    names = [name for name, _ in network.named_modules() if name]
    layers: set[Layer] = set()
    for pattern in [patterns] if isinstance(patterns, str) else list(patterns):
        path, _, call = str(pattern).partition("@")
        if call and not call.isdigit():
            raise ValueError(f"layer {pattern!r}: expected the number of the call after @, 0 for the first")
        matches = [name for name in names if _matches(name.split("."), path.split("."))]
        if "*" in path:
            matches = [name for name in matches if not isinstance(network.get_submodule(name), CONTAINERS)]
        if not matches:
            nearest = difflib.get_close_matches(path, names, SUGGESTIONS, cutoff=0.0)
            raise ValueError(
                f"layer {pattern!r} is not in this {type(network).__name__}; nearest: {', '.join(nearest)} "
                "(list=true prints all of them)"
            )
        layers |= {Layer(name, int(call or 0)) for name in matches}
    if not layers:
        raise ValueError("no layers given: set layers=[encoder.layer.2], for example (list=true prints them)")
    return sorted(layers, key=lambda layer: (names.index(layer.name), layer.call))


def _matches(name: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(_matches(name[skipped:], pattern[1:]) for skipped in range(len(name) + 1))
    return bool(name) and fnmatch.fnmatchcase(name[0], pattern[0]) and _matches(name[1:], pattern[1:])


def list_outputs(
    network: nn.Module, forward: Callable[[], None]
) -> tuple[list[LayerOutputs], Exception | None]:
    """Run the network once and return the shapes of the outputs of every module.

    The second value is the error that ended the run early, if any: layers before it can still be harvested.

    Raises:
        Exception: the network failed before any module returned.
    """
    shapes: dict[str, list[tuple[int, ...] | None]] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            tensor = first_tensor(output)
            shapes.setdefault(name, []).append(None if tensor is None else tuple(tensor.shape))

        return hook

    modules = {name: module for name, module in network.named_modules() if name}
    handles = [module.register_forward_hook(record(name)) for name, module in modules.items()]
    failure: Exception | None = None
    try:
        with torch.inference_mode():
            forward()
    except Exception as error:
        if not shapes:
            raise
        failure = error
    finally:
        for handle in handles:
            handle.remove()
    outputs = [
        LayerOutputs(name, type(modules[name]).__name__, shapes[name]) for name in modules if name in shapes
    ]
    return outputs, failure


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
    if isinstance(output, Mapping):
        output = [
            value for key, value in output.items() if not any(w in str(key).lower() for w in PASSED_OVER)
        ]
    values = output if isinstance(output, list | tuple) else [output]
    return next((value for value in values if isinstance(value, Tensor) and _is_dense(value)), None)


def _is_dense(value: Tensor) -> bool:
    if value.is_nested or value.layout != torch.strided:
        return False
    return value.is_floating_point() and value.ndim > 0 and value.numel() > 0


def _kind(output: Any) -> str:
    """Say what a module returned, for a message."""
    if isinstance(output, Tensor):
        if output.is_nested or output.layout != torch.strided:
            return "a nested tensor" if output.is_nested else f"a tensor of layout {output.layout}"
        if output.ndim and not output.numel():
            return f"an empty tensor {tuple(output.shape)}"
        return f"numbers of type {output.dtype}" if output.ndim else "a scalar"
    if isinstance(output, Mapping):
        parts = ", ".join(f"{key}: {_kind(value)}" for key, value in output.items())
        return f"{type(output).__name__} of {parts}"
    return type(output).__name__


class _Stop(Exception):  # noqa: N818  (not an error: every layer has been captured)
    """Ends the forward pass."""


class Capture:
    """Runs a network up to the last of ``layers`` and collects what they return.

    ``keep(layer, output)`` runs inside the hook, because later modules may overwrite the tensor in place.

    >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> capture = Capture(network, [Layer("0")], lambda layer, output: tuple(output.shape))
    >>> capture.run(lambda: network(torch.zeros(5, 2)))
    {Layer(name='0', call=0): (5, 3)}
    """

    def __init__(
        self, network: nn.Module, layers: Sequence[Layer], keep: Callable[[Layer, Tensor], Any]
    ) -> None:
        self.network, self.layers, self.keep = network, list(layers), keep

    def run(self, forward: Callable[[], None]) -> dict[Layer, Any]:
        """Return what ``keep`` returned for each layer.

        Raises:
            ValueError: a layer was not called, or returned no activations.
            NetworkError: the network raised an error (out-of-memory and import errors keep their type).
        """
        kept: dict[Layer, Any] = {}
        calls: Counter[str] = Counter()
        self._refused = False
        handles = [
            self.network.get_submodule(name).register_forward_hook(self._hook(name, calls, kept))
            for name in {layer.name for layer in self.layers}
        ]
        try:
            with torch.inference_mode():
                forward()
        except _Stop:
            pass
        except (torch.OutOfMemoryError, ImportError):
            raise
        except Exception as error:
            if self._refused:
                raise
            ahead = next((layer for layer in self.layers if layer not in kept), self.layers[-1])
            raise NetworkError(
                f"the network failed before layer {ahead!s} was reached: {type(error).__name__}: {error}"
            ) from error
        finally:
            for handle in handles:
                handle.remove()
        if missing := [layer for layer in self.layers if layer not in kept]:
            name = missing[0].name
            raise ValueError(
                f"layer {missing[0]!s} was not reached: the network called {name!r} {calls[name]} times"
            )
        return kept

    def _hook(self, name: str, calls: Counter[str], kept: dict[Layer, Any]) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            layer = Layer(name, calls[name])
            calls[name] += 1
            if layer not in self.layers:
                return
            try:
                tensor = first_tensor(output)
                if tensor is None:
                    raise ValueError(
                        f"layer {layer!s} returns {_kind(output)}, not activations; choose another "
                        "(list=true)"
                    )
                kept[layer] = self.keep(layer, tensor)
            except Exception:
                self._refused = True
                raise
            if len(kept) == len(self.layers):
                raise _Stop

        return hook
