"""Read atoms through the head of a network: the tokens or classes that a concept promotes and suppresses.

Legend:  D (k, d) dictionary   W (v, m) unembedding, or weights of a classifier   m width of the stream
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seminmf_lightning.harvest.activations import first_tensor, named_arguments, only_tensor
from seminmf_lightning.harvest.layers import Layer

LOGITS_AT_ONCE = 2**25
"""Logits held in memory: 128 MB."""


class Lens(NamedTuple):
    """Numbers (k, top) of the tokens or classes with the largest logits, and of those with the smallest.

    -1 where an atom has no direction, such as a dead one of zeros.
    """

    promotes: Tensor
    suppresses: Tensor


@dataclass(frozen=True)
class Head:
    """The parts of a network that a lens looks through."""

    unembedding: nn.Module
    """The last affine map, of tokens or classes."""
    norm: nn.Module | None = None
    """The norm before it, if there is one."""
    projection: nn.Module | None = None
    """The affine map from a hidden layer, such as the input of ``down_proj``, to the stream."""


@torch.no_grad()
def logit_lens(D: Tensor, head: Head, top: int = 10) -> Lens:
    """Return the tokens or classes that each atom promotes and suppresses most.

    ``logits_j = W (norm(c P D_j) - norm(0))``, with P the projection of a hidden layer, without biases, and c
    such that the entries of ``c P D_j`` have a mean square of 1.  A stream that is the atom alone is read as
    the logit lens reads streams (nostalgebraist, 2020), and Geva et al. (2022) the vectors of an MLP; what
    the blocks between the layer and the head do with the concept is not in it.  Float32, in blocks of atoms.

    Raises:
        ValueError: the atoms are not as wide as the projection or the unembedding.

    >>> unembedding = nn.Linear(2, 3, bias=False)
    >>> _ = unembedding.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    >>> logit_lens(torch.tensor([[2.0, 0.1]]), Head(unembedding), top=1)
    Lens(promotes=tensor([[0]]), suppresses=tensor([[2]]))
    """
    W = head.unembedding.weight
    assert isinstance(W, Tensor)
    V = D.detach().to(W.device).float()
    if head.projection is not None:
        V = _directions(head.projection, V)
    if V.shape[1] != W.shape[1]:
        raise ValueError(f"atoms of {V.shape[1]} features, but the head takes {W.shape[1]}")
    dead = ~V.any(dim=1)
    V = V / V.square().mean(dim=1, keepdim=True).sqrt().clamp(min=torch.finfo(V.dtype).tiny)
    if head.norm is not None:
        V = _directions(head.norm, V)
    W, top = W.float(), min(top, len(W))
    blocks = [block @ W.T for block in V.split(max(1, LOGITS_AT_ONCE // len(W)))]
    ends = (torch.cat([logits.topk(top, largest=largest).indices for logits in blocks])
            for largest in (True, False))  # fmt: skip
    return Lens(*(numbers.masked_fill(dead[:, None], -1).cpu() for numbers in ends))


def lens_texts(lens: Lens, name: Callable[[int], str]) -> list[dict[str, list[str]]]:
    """Return ``{"promotes": [...], "suppresses": [...]}`` of each atom, named by ``name``."""
    promotes, suppresses = (
        [[name(one) for one in numbers if one >= 0] for numbers in side.tolist()] for side in lens
    )
    return [{"promotes": most, "suppresses": least} for most, least in zip(promotes, suppresses, strict=True)]


def find_head(network: nn.Module, layer: Layer, run: Callable[[], Any]) -> Head:
    """Return the head of a network that ``run`` calls once, as seen from a layer.

    The head is the unembedding, or the last linear map of a classifier.  A norm may come before it, and
    poolings; before these the stream, which blocks beside the layer's own return, or the layer itself.

    Raises:
        ValueError: no head, or something between the layer and the head that a direction does not pass
            unchanged; the message names it.
    """
    calls = _calls(network, run)
    head = _last_map(network, calls)
    own = next((one for one in calls if one.name == layer.name), None)
    if own is None or head.given is None:
        raise ValueError(f"layer {layer!s} or the head {head.name!r} was not reached")
    module, width = own.module, head.given.shape[-1]
    source = own.given if layer.side == "input" else own.returned
    norm: nn.Module | None = None
    before = head.given
    while not _shared(source, before):
        call = next((one for one in calls if _shared(one.returned, before)), None)
        if call is None or call.given is None:
            raise ValueError(f"what {head.name!r} is given is computed outside of a module")
        if _beside(network, call.name, layer.name):
            break
        sizes = [tuple(one.shape) for one in call.module.parameters()]
        kind = type(call.module).__name__
        if norm is None and sizes and set(sizes) == {(width,)} and "BatchNorm" not in kind:
            norm = call.module
        elif sizes or call.given.shape == before.shape:
            raise ValueError(f"{call.name!r}, a {kind}, lies between the layer and the head")
        before = call.given
    if layer.side == "output" or module is head.module:
        return Head(head.module, norm)
    if own.returned is None or own.returned.shape[-1] != width or not _is_affine(module):
        raise ValueError(f"layer {layer!s} is the input of a {type(module).__name__}, not of a linear map")
    return Head(head.module, norm, module)


class _Call(NamedTuple):
    name: str
    module: nn.Module
    given: Tensor | None
    returned: Tensor | None


def _calls(network: nn.Module, run: Callable[[], Any]) -> list[_Call]:
    """Return the calls of all modules in the order in which they return; their tensors stay alive."""
    calls: list[_Call] = []

    def keep(name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        given = only_tensor(named_arguments(module, args, kwargs))
        logits = getattr(output, "logits", None) if not name else None
        calls.append(_Call(name, module, given, first_tensor(output if logits is None else logits)))

    handles = [
        module.register_forward_hook(
            lambda module, args, kwargs, output, name=name: keep(name, module, args, kwargs, output),
            with_kwargs=True,
        )
        for name, module in network.named_modules()
    ]  # fmt: skip
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _last_map(network: nn.Module, calls: Iterable[_Call]) -> _Call:
    """Return the call of the unembedding, or of the linear map whose output is the network's."""
    calls = list(calls)
    try:
        unembedding = network.get_output_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        unembedding = None
    logits = calls[-1].returned
    for call in calls:
        classifies = isinstance(call.module, nn.Linear) and _shared(call.returned, logits)
        if call.module is unembedding or classifies:
            if any(one.isnan().any() for one in call.module.parameters()):
                raise ValueError(f"the checkpoint lacks the weights of {call.name!r}")
            return call
    raise ValueError(f"{type(network).__name__} has no head: neither an unembedding nor a classifier")


def _shared(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return False
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _beside(network: nn.Module, name: str, layer: str) -> bool:
    """Whether a module is a numbered block of the same class as the one that holds the layer.

    ``model.layers.29`` is beside ``model.layers.15.mlp``: they write to one stream.
    """
    parent, _, number = name.rpartition(".")
    if not parent or not number.isdigit() or not layer.startswith(f"{parent}."):
        return False
    own = f"{parent}.{layer.removeprefix(f'{parent}.').partition('.')[0]}"
    block = network.get_submodule(name)
    return type(network.get_submodule(own)) is type(block) and any(True for _ in block.children())


def _is_affine(module: nn.Module) -> bool:
    """Whether a module is a linear map, also GPT-2's ``Conv1D``, which is a transposed one."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _directions(module: nn.Module, V: Tensor) -> Tensor:
    """Return what a module makes of directions V (k, d), without its bias."""
    module = copy.deepcopy(module).float()
    return module(V) - module(torch.zeros_like(V[:1]))
