"""Layers by name: find them, hook them, stop the network after the last one.

A layer is written as its dotted path, ``encoder.layer.2``, or a glob in which ``*`` stands for one part of
the path and ``**`` for any number of them.  ``name@1`` is the second call of a module that is called several
times a pass.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

NEAREST = 5
CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


class Layer(NamedTuple):
    """One call of one module."""

    name: str
    call: int = 0

    def __str__(self) -> str:
        return self.name if self.call == 0 else f"{self.name}@{self.call}"


class Candidate(NamedTuple):
    """What a module returned in a trial pass."""

    name: str
    module: str
    shapes: list[tuple[int, ...] | None]
    """One a call; None where no tensor was returned."""


def match_layers(network: nn.Module, patterns: str | Sequence[str]) -> list[Layer]:
    """The layers that names and globs stand for, in the order of the network.

    Raises:
        ValueError: a pattern matches nothing; the message lists the nearest names.
    """
    names = [name for name, _ in network.named_modules() if name]
    found: set[Layer] = set()
    for pattern in [patterns] if isinstance(patterns, str) else list(patterns):
        path, _, call = str(pattern).partition("@")
        if call and not call.isdigit():
            raise ValueError(f"layer {pattern!r}: after @ comes the number of the call, 0 for the first")
        matches = [name for name in names if _matches(name.split("."), path.split("."))]
        if "*" in path:  # containers are never called
            matches = [name for name in matches if not isinstance(network.get_submodule(name), CONTAINERS)]
        if not matches:
            near = difflib.get_close_matches(path, names, NEAREST, cutoff=0.0)
            raise ValueError(
                f"layer {pattern!r} is not in this {type(network).__name__}; nearest: {', '.join(near)} "
                "(list=true prints all of them)"
            )
        found |= {Layer(name, int(call or 0)) for name in matches}
    if not found:
        raise ValueError(
            "no layer asked for: set layers, for example layers=[encoder.layer.2] (list=true prints them)"
        )
    return sorted(found, key=lambda layer: (names.index(layer.name), layer.call))


def _matches(name: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(_matches(name[skipped:], pattern[1:]) for skipped in range(len(name) + 1))
    return bool(name) and fnmatch.fnmatchcase(name[0], pattern[0]) and _matches(name[1:], pattern[1:])


def try_layers(network: nn.Module, run: Callable[[], None]) -> tuple[list[Candidate], Exception | None]:
    """What every module returns in one pass, and what ended it early if something did: layers before can be
    harvested."""
    seen: dict[str, list[tuple[int, ...] | None]] = {}
    handles = []

    def watch(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> None:
            tensor = first_tensor(output)
            seen.setdefault(name, []).append(None if tensor is None else tuple(tensor.shape))

        return hook

    modules = {name: module for name, module in network.named_modules() if name}
    for name, module in modules.items():
        handles.append(module.register_forward_hook(watch(name)))
    failure: Exception | None = None
    try:
        with torch.inference_mode():
            run()
    except Exception as error:
        if not seen:
            raise
        failure = error
    finally:
        for handle in handles:
            handle.remove()
    return [
        Candidate(name, type(module).__name__, seen[name]) for name, module in modules.items() if name in seen
    ], failure


def first_tensor(output: Any) -> Tensor | None:
    """The activations in what a module returns: itself, the hidden state of a model's output, the first of a
    tuple."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple) and output and isinstance(output[0], Tensor):
        return output[0]
    return None


class _Stop(Exception):  # noqa: N818  (no error: the last layer has been seen)
    """Leaves the forward pass."""


class Capture:
    """Runs a network as far as needed and keeps what the layers return.

    Raises (from :meth:`run`):
        ValueError: a layer was not called, or returned no tensor.
    """

    def __init__(
        self, network: nn.Module, layers: Sequence[Layer], keep: Callable[[Layer, Tensor], Any]
    ) -> None:
        self.network, self.layers, self.keep = network, list(layers), keep

    def run(self, forward: Callable[[], None]) -> dict[Layer, Any]:
        """What ``keep`` made of each layer's output.  It is called inside the hook: later modules may
        overwrite a tensor."""
        kept: dict[Layer, Any] = {}
        calls: Counter[str] = Counter()
        handles = []
        for name in {layer.name for layer in self.layers}:
            handles.append(
                self.network.get_submodule(name).register_forward_hook(self._hook(name, calls, kept))
            )
        try:
            with torch.inference_mode():
                forward()
        except _Stop:
            pass
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
            tensor = first_tensor(output)
            if tensor is None:
                raise ValueError(
                    f"layer {layer!s} returns {type(output).__name__}, not a tensor; choose another (list=true)"
                )
            kept[layer] = self.keep(layer, tensor)
            if len(kept) == len(self.layers):
                raise _Stop

        return hook
