"""Find layers by name, capture what they return or are given, and stop the network after the last one.

A layer is a dotted path, ``encoder.layer.2``, or a glob in which ``*`` stands for one part of the path and
``**`` for any number of parts. ``name@1`` is the second call of a module that runs several times per forward
pass. ``name:input`` is what the module is given instead of what it returns (``name:output``, the default).
"""

from __future__ import annotations

import difflib
import fnmatch
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seminmf_lightning.harvest.activations import describe, first_tensor, named_arguments, only_tensor

SUGGESTIONS = 5
"""Names listed when a pattern matches nothing."""
CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
"""Modules that are never called."""
SIDES = ("input", "output")


class NetworkError(ValueError):
    """The network itself failed before a requested layer."""


class Layer(NamedTuple):
    """What one call of one module returns, or is given.

    >>> str(Layer("encoder.layer.2")), str(Layer("relu", 1)), str(Layer("mlp.down_proj", side="input"))
    ('encoder.layer.2', 'relu@1', 'mlp.down_proj:input')
    """

    name: str
    call: int = 0
    """0 is the first call of the module in a forward pass."""
    side: str = "output"
    """``output`` or ``input``."""

    def __str__(self) -> str:
        call = f"@{self.call}" if self.call else ""
        return f"{self.name}{call}{':input' if self.side == 'input' else ''}"


class LayerShapes(NamedTuple):
    """Shapes that one module returned, and was given, in a forward pass."""

    name: str
    module: str
    """Name of its class."""
    outputs: list[tuple[int, ...] | None]
    """One per call; None where it returned no tensor."""
    inputs: list[tuple[int, ...] | None]
    """One per call; None where it was not given exactly one tensor, or one that another module returned."""


def match_layers(network: nn.Module, patterns: str | Sequence[str]) -> list[Layer]:
    """Return the layers that names and globs stand for, in the network's order.

    Raises:
        ValueError: a pattern matches nothing (the message lists the nearest names) or has an unknown suffix,
            or there is no pattern.

    >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> [str(layer) for layer in match_layers(network, ["1", "*", "0:input"])]
    ['0:input', '0', '1']
    """
    names = [name for name, _ in network.named_modules() if name]
    layers: set[Layer] = set()
    for pattern in [patterns] if isinstance(patterns, str) else list(patterns):
        target, side = str(pattern), "output"
        if ":" in target:
            target, _, side = target.rpartition(":")
        if side not in SIDES:
            raise ValueError(
                f"layer {pattern!r}: unknown suffix {':' + side!r}; accepted: :input, and :output, the "
                f"default; type {target}:input or {target}"
            )
        path, _, call = target.partition("@")
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
        layers |= {Layer(name, int(call or 0), side) for name in matches}
    if not layers:
        raise ValueError("no layers given: set layers=[encoder.layer.2], for example (list=true prints them)")
    return sorted(layers, key=lambda layer: (names.index(layer.name), layer.call, layer.side))


def _matches(name: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(_matches(name[skipped:], pattern[1:]) for skipped in range(len(name) + 1))
    return bool(name) and fnmatch.fnmatchcase(name[0], pattern[0]) and _matches(name[1:], pattern[1:])


def list_shapes(
    network: nn.Module, forward: Callable[[], None]
) -> tuple[list[LayerShapes], Exception | None]:
    """Run the network once and return the shapes of the outputs and inputs of every module.

    The second value is the error that ended the run early, if any: layers before it can still be harvested.

    Raises:
        Exception: the network failed before any module returned.
    """
    modules = {name: module for name, module in network.named_modules() if name}
    layers = {name: LayerShapes(name, type(module).__name__, [], []) for name, module in modules.items()}
    returned: dict[int, weakref.ref[Tensor]] = {}  # weak, or the outputs of all modules would be held at once

    def record(layer: LayerShapes) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            given, tensor = only_tensor(named_arguments(module, args, kwargs)), first_tensor(output)
            is_new = given is not None and returned.get(id(given), lambda: None)() is not given
            layer.inputs.append(tuple(given.shape) if given is not None and is_new else None)
            layer.outputs.append(None if tensor is None else tuple(tensor.shape))
            if tensor is not None:
                returned[id(tensor)] = weakref.ref(tensor)

        return hook

    handles = [
        module.register_forward_hook(record(layers[name]), with_kwargs=True)
        for name, module in modules.items()
    ]
    failure: Exception | None = None
    try:
        with torch.inference_mode():
            forward()
    except Exception as error:
        if not any(layer.outputs for layer in layers.values()):
            raise
        failure = error
    finally:
        for handle in handles:
            handle.remove()
    return [layer for layer in layers.values() if layer.outputs], failure


class _Stop(Exception):  # noqa: N818  (not an error: every layer has been captured)
    """Ends the forward pass."""


class Capture:
    """Runs a network up to the last of ``layers`` and collects what they return, or are given.

    ``keep(layer, tensor)`` runs inside the hook, because later modules may overwrite the tensor in place.

    >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> layers = [Layer("0", side="input"), Layer("0")]
    >>> shapes = Capture(network, layers, lambda layer, tensor: tuple(tensor.shape))
    >>> {str(layer): shape for layer, shape in shapes.run(lambda: network(torch.zeros(5, 2))).items()}
    {'0:input': (5, 2), '0': (5, 3)}
    """

    def __init__(
        self, network: nn.Module, layers: Sequence[Layer], keep: Callable[[Layer, Tensor], Any]
    ) -> None:
        self.network, self.layers, self.keep = network, list(layers), keep

    def run(self, forward: Callable[[], None]) -> dict[Layer, Any]:
        """Return what ``keep`` returned for each layer.

        Raises:
            ValueError: a layer was not called, returned no activations, or (``:input``) was not given exactly
                one tensor of them.
            NetworkError: the network raised an error (out-of-memory and import errors keep their type).
        """
        kept: dict[Layer, Any] = {}
        calls: Counter[tuple[str, str]] = Counter()
        self._refused = False
        handles = []
        for name, side in {(layer.name, layer.side) for layer in self.layers}:
            module = self.network.get_submodule(name)
            hook = self._hook(name, side, calls, kept)
            if side == "input":
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(hook, with_kwargs=True))
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
            name, _, side = missing[0]
            count = calls[name, side]
            hint = f"choose a call below @{count}" if count else "choose a layer that it calls (list=true)"
            raise ValueError(
                f"layer {missing[0]!s} was not reached: the network called {name!r} {count} times; {hint}"
            )
        return kept

    def _hook(
        self, name: str, side: str, calls: Counter[tuple[str, str]], kept: dict[Layer, Any]
    ) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any = None) -> None:
            layer = Layer(name, calls[name, side], side)
            calls[name, side] += 1
            if layer not in self.layers:
                return
            try:
                if side == "input":
                    arguments = named_arguments(module, args, kwargs)
                    tensor = only_tensor(arguments)
                    found = f"is given {describe(arguments)}, not exactly one tensor of activations"
                else:
                    tensor, found = first_tensor(output), f"returns {describe(output)}, not activations"
                if tensor is None:
                    raise ValueError(f"layer {layer!s} {found}; choose another (list=true)")
                kept[layer] = self.keep(layer, tensor)
            except Exception:
                self._refused = True
                raise
            if len(kept) == len(self.layers):
                raise _Stop

        return hook
