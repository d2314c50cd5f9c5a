"""Run texts through the network that a run was harvested from, up to its layer.

The manifest of the harvest says which model, layer, tokens and norm filter, or a model is given by its path.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.data.sources.shards import chosen_layers
from seminmf_lightning.harvest import Harvester, HarvestRecipe, Store
from seminmf_lightning.harvest.inputs import Unreadable
from seminmf_lightning.harvest.models.transformers import TransformersModel
from seminmf_lightning.harvest.norm_filter import NormFilter
from seminmf_lightning.harvest.reading import Read
from seminmf_lightning.io.schema import conform
from seminmf_lightning.network.reading import GivenTexts
from seminmf_lightning.suites.probing.tasks import Task

SELECTOR = {"tokens": str, "number?": int, "seed?": int}
MODEL = {"library": str, "path": str, "architecture": str, "weights": str, "precision": str,
         "preprocessing": {"max_length": int}}  # fmt: skip


@dataclass
class TaskTexts(GivenTexts):
    """The texts of a task."""

    name: str = ""

    def identify(self, example: int) -> str:
        return f"task {self.name}, text {example} ({self.texts[example][:40]!r})"


@dataclass(frozen=True)
class Activations:
    """Rows of a task's texts, one text after the other."""

    rows: Tensor
    """(t, d)."""
    counts: np.ndarray
    """Rows of each text (n,); 0 for a text without tokens."""
    longer: int
    """Texts of which only the first windows were read."""


@dataclass
class TextReader:
    """Texts to rows of one layer."""

    harvester: Harvester
    windows: int | None
    """Windows read of each text, from its start; None: all."""

    def read(self, task: Task) -> Activations:
        """Run all texts of a task, sorted by length in batches.

        Raises:
            ValueError: a text cannot be read, or none has a token.
        """
        inputs = self.harvester.inputs = TaskTexts(task.texts, task.name)
        reads, longer = [], 0
        for number, text in enumerate(task.texts):
            try:
                items = self.harvester.loaded.feed.items(number, text)
            except Unreadable as error:
                raise ValueError(f"{inputs.identify(number)}: {error}") from error
            kept = items if self.windows is None else items[: self.windows]
            longer += len(kept) < len(items)
            reads.append(Read(number, inputs.identify(number), kept, {}, None))
        harvested = self.harvester.harvest(reads)
        if harvested is None:
            raise ValueError(f"task {task.name}: no text has a token")
        ((_, rows),) = harvested.rows.items()
        counts = np.bincount(rows.origin["example"], minlength=len(task.texts))
        return Activations(rows.values.float(), counts, longer)


def reader_of_model(
    path: str, layer: str, max_length: int | None, *, windows: int | None, batch_size: int,
    device: torch.device,
) -> TextReader:  # fmt: skip
    """Return the reader of a model of transformers and one of its layers; special tokens are left out."""
    model = TransformersModel(path, max_length=max_length)
    return _reader(model, layer, {"tokens": "no_special"}, None, windows, batch_size, device)


def reader_of_store(
    folder: str, layer: str | None, max_length: int | None, *, windows: int | None, batch_size: int,
    device: torch.device,
) -> TextReader:  # fmt: skip
    """Return the reader that a harvest's manifest describes.

    Raises:
        FileNotFoundError, ValueError: no finished harvest of texts by transformers, or other weights by now.
    """
    manifest = Store(folder).manifest()
    if manifest is None or not manifest["complete"]:
        raise FileNotFoundError(f"{folder}: no finished harvest; its manifest.json names the model and layer")
    layer = chosen_layers(manifest, layer, folder)[0]
    settings, path = manifest["settings"], Path(folder) / "manifest.json"
    conform(path, settings, {"model": {"library": str}, "selector": SELECTOR}, "settings")
    stored = settings["model"]
    if stored["library"] != "transformers":
        raise ValueError(
            f"{path}: the model comes from {stored['library']}; texts are read by transformers: give "
            "suite.probes.model=PATH suite.probes.layer=NAME"
        )
    conform(path, stored, MODEL, "settings.model")
    model = TransformersModel(
        stored["path"], stored["architecture"], stored.get("revision"),
        max_length or stored["preprocessing"]["max_length"], stored["precision"],
    )  # fmt: skip
    norms = settings.get("norm_filter")
    reader = _reader(model, layer, settings["selector"], norms, windows, batch_size, device)
    reader.harvester.norm_filter = NormFilter(
        reader.harvester.norm_filter.name, limits=manifest["plan"].get("norm_limits", {})
    )
    if (weights := reader.harvester.loaded.description["weights"]) != stored["weights"]:
        raise ValueError(
            f"{path}: {stored['path']} had the weights {stored['weights']} when it was harvested, and has "
            f"{weights} now: give suite.probes.model=PATH of the same weights"
        )
    return reader


def _reader(
    model: TransformersModel, layer: str, selector: dict[str, Any], norms: dict[str, Any] | None,
    windows: int | None, batch_size: int, device: torch.device,
) -> TextReader:  # fmt: skip
    kept = {key: selector[key] for key in ("tokens", "number", "seed") if key in selector}
    name = norms["name"] if norms else "none"
    recipe = HarvestRecipe(model, TaskTexts([]), [layer], norm_filter=name, batch_size=batch_size, **kept)
    harvester = recipe.harvester(device)
    if len(harvester.layers) != 1:
        raise ValueError(f"layer={layer!r} names {len(harvester.layers)} layers; one is probed")
    return TextReader(harvester, windows)
