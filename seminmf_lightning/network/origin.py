"""Compare a network and a layer with those that a dictionary was learned from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from seminmf_lightning.harvest.layers import Layer
from seminmf_lightning.harvest.models.weights import weights_digest


class OtherWeights(ValueError):  # noqa: N818  (says what is wrong with the network)
    """The layer is right, but the weights are others."""


def layer_within(network: nn.Module, origin: Mapping[str, Any]) -> str | None:
    """Return the name that the layer of ``origin`` has in this network; None if it has no such part.

    A dictionary of ``layers.5`` of a LlamaModel belongs to ``model.layers.5`` of a LlamaForCausalLM.

    >>> origin = {"model": {"architecture": "Linear"}, "layer": "inner"}
    >>> layer_within(nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), origin)
    '1.inner'
    """
    part = _part(network, origin["model"])
    return None if part is None else ".".join(filter(None, [part, origin["layer"]]))


def check_origin(network: nn.Module, layer: Layer, origin: Mapping[str, Any]) -> None:
    """Raise a ValueError unless the layer and the weights are those that a dictionary was learned from.

    Weights are compared where the network has the precision of the harvest: :class:`OtherWeights`.

    Args:
        origin: ``{"model": description of the harvest's manifest, "layer": name}``.
    """
    model, go_on = origin["model"], "force=True attaches it all the same"
    source = model.get("path", model.get("name"))
    expected = layer_within(network, origin)
    if expected is None:
        raise ValueError(
            f"the dictionary was learned from a {model.get('architecture')} ({source}), but this "
            f"model is a {type(network).__name__} and holds none; {go_on}"
        )
    if str(layer) != expected:
        raise ValueError(f"the dictionary was learned from layer {expected}, not {layer!s}; {go_on}")
    part = network.get_submodule(_part(network, model) or "")
    precisions = {str(one.dtype).removeprefix("torch.") for one in part.parameters()}
    if precisions == {model.get("precision")} and (digest := weights_digest(part)) != model.get("weights"):
        raise OtherWeights(
            f"this {type(part).__name__} has other weights ({digest}) than {source} had "
            f"when its activations were harvested ({model.get('weights')}); {go_on}"
        )


def holds_weights_of(network: nn.Module, harvested: nn.Module, origin: Mapping[str, Any]) -> bool:
    """Whether the part of a network that was harvested has the weights of the whole class.

    Below a head it may lack some of them, such as the pooler of BERT, and has another digest then.

    >>> inner = nn.Linear(2, 2)
    >>> holds_weights_of(nn.Sequential(inner), inner, {"model": {"architecture": "Linear"}})
    True
    """
    part = network.get_submodule(_part(network, origin["model"]) or "").state_dict()
    whole = harvested.state_dict()
    return all(name in whole and torch.equal(value, whole[name]) for name, value in part.items())


def _part(network: nn.Module, model: Mapping[str, Any]) -> str | None:
    """Return the name of the first module of the harvested class; '' is the network itself."""
    architecture = model.get("architecture")
    return next((name for name, one in network.named_modules() if type(one).__name__ == architecture), None)
