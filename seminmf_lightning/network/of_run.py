"""Load the network that a run's activations come from, and find their layer in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from seminmf_lightning.harvest import Harvester, HarvestRecipe
from seminmf_lightning.harvest.layers import Layer
from seminmf_lightning.harvest.models.base import local_path
from seminmf_lightning.network.hooks import find_layer
from seminmf_lightning.network.origin import OtherWeights, check_origin, holds_weights_of, layer_within

Origin = Mapping[str, Any] | None
"""``{"model": description of the harvest's manifest, "layer": name}``, as a run keeps it."""


def model_of_run(origin: Origin, run: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the settings of the harvest's model; code that comes with a model is never run.

    Raises:
        ValueError: the run does not say which, or where, or it needs settings that a run does not keep.
    """
    model = {} if origin is None else origin["model"]
    library, preprocessing = model.get("library"), model.get("preprocessing") or {}
    if library == "efficientnet_lite_pytorch":
        return {"name": "efficientnet_lite", "image_size": preprocessing["image_size"]}
    if library != "transformers":
        known = f"{library} model.path={model.get('path')}" if library in ("timm", "torchvision") else "..."
        raise ValueError(
            f"{run} was learned from {library or 'rows'}: give the network, model={known} as "
            "for the command harvest"
        )
    if model.get("path") is None:
        raise ValueError(
            f"{run} does not say where its {model.get('architecture')} ({model.get('name')}) is: give "
            "model=transformers model.path=..."
        )
    kept = {key: model.get(key) for key in ("path", "architecture", "revision", "precision")}
    return {"name": "transformers", **kept, "max_length": preprocessing.get("max_length")}


def with_head(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a model of transformers with the class that its checkpoint names.

    A harvest of an ``AutoModel`` leaves the head of the checkpoint out; this class has it.  Models of other
    libraries have their heads.
    """
    if settings["name"] != "transformers":
        return dict(settings)
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(
            local_path(settings["path"]), revision=settings.get("revision")
        )
    except (OSError, ValueError):
        return dict(settings)  # loading it explains what is wrong
    named = next(iter(config.architectures or ()), None)
    known = named is not None and hasattr(transformers, named)
    return dict(settings) | ({"architecture": named} if known else {})


def layer_of_run(network: nn.Module, origin: Origin, given: str | None, run: object, key: str) -> Layer:
    """Return the layer ``given``, or that of the run's harvest.

    Raises:
        ValueError: this network does not have it; ``key`` is the setting that names another.
    """
    name = given
    if name is None and origin is not None:
        name = layer_within(network, origin)
    if name is None:
        raise ValueError(f"{run} does not name a layer of {type(network).__name__}: give {key}=...")
    return find_layer(network, name)


def check_network_of_run(
    origin: Origin, run: str | os.PathLike[str], harvester: Harvester, given: bool
) -> None:
    """Raise a ValueError for a network that the dictionary of a run was not learned from, if that is known.

    Args:
        harvester: the network, with one layer.
        given: it is not :func:`model_of_run`, perhaps with another head, but one that somebody chose.
    """
    network, (layer,) = harvester.loaded.network, harvester.layers
    if origin is None:
        return
    try:
        check_origin(network, layer, origin)
    except OtherWeights:
        if given:
            raise
        recipe = HarvestRecipe(model_of_run(origin, run), harvester.inputs)  # without a head
        harvested = recipe.loaded.network.to(harvester.device)
        check_origin(harvested, find_layer(harvested, origin["layer"]), origin)
        if not holds_weights_of(network, harvested, origin):
            raise
