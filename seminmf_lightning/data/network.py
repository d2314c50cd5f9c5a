"""Name the network that rows come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seminmf_lightning.data.datamodule import ActivationDataModule
from seminmf_lightning.data.live import HarvestDataModule
from seminmf_lightning.harvest.store import Store


def network_of(data: object) -> dict[str, Any] | None:
    """Return the model's description and the layer, as a dictionary file keeps them; None if unknown.

    It is unknown for rows that no harvest made, for several layers, and for a harvest that is gone.
    """
    if isinstance(data, HarvestDataModule):
        return {"model": data.recipe.loaded.description, "layer": str(data.harvester.layers[0])}
    if not isinstance(data, ActivationDataModule):
        return None
    try:
        harvest = data.source.harvest()
        manifest = None if harvest is None else Store(harvest[0]).manifest()
    except (OSError, ValueError):
        return None
    model = None if manifest is None else manifest["settings"].get("model")
    if harvest is None or not isinstance(model, dict):
        return None
    return {"model": model, "layer": harvest[1]}


def differing(*networks: Mapping[str, Any] | None) -> list[str]:
    """Return how two networks with their layers are called, if both are known and differ; else nothing.

    >>> differing({"model": {"architecture": "ViT"}, "layer": "a"}, {"model": {}, "layer": "b"})
    ['layer a of ViT (weights None)', 'layer b of None (weights None)']
    """
    named = [
        f"layer {one['layer']} of {one['model'].get('architecture')} (weights {one['model'].get('weights')})"
        for one in networks if one is not None
    ]  # fmt: skip
    return named if len(set(named)) > 1 else []
