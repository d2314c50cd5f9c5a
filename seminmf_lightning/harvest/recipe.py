"""The settings of a harvest: a model, inputs, layers, and which positions become rows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch

from seminmf_lightning.core.checks import whole_number
from seminmf_lightning.core.discovery import build, spec_of
from seminmf_lightning.harvest.harvester import Harvester
from seminmf_lightning.harvest.inputs import Inputs
from seminmf_lightning.harvest.layers import match_layers
from seminmf_lightning.harvest.models import Loaded, Model
from seminmf_lightning.harvest.norm_filter import NormFilter
from seminmf_lightning.harvest.row_selection import Selector

WORKERS_BESIDE_A_GPU = 8


@dataclass
class HarvestRecipe:
    """Every setting that decides which rows a harvest gives, except for the type they are stored in.

    The commands and :class:`~seminmf_lightning.data.HarvestDataModule` take their keys from these fields;
    ``configs/harvest/recipe.yaml`` holds the same defaults.

    Raises:
        TypeError, ValueError: a bad setting; the message names it and says what is accepted.
    """

    model: Model | Mapping[str, Any]
    """A model library, or a mapping with its ``name`` (a file of ``harvest/models``) and settings."""
    inputs: Inputs | Mapping[str, Any]
    """A kind of input, or a mapping with its ``name`` (a file of ``harvest/inputs``) and settings."""
    layers: str | Sequence[str] = ()
    """Dotted paths or globs, ``:input`` for inputs; see :mod:`seminmf_lightning.harvest.layers`."""
    tokens: str = "no_special"
    """``all``, ``cls``, ``no_special``, ``mean`` (one row per item) or ``random`` (``number`` per item)."""
    number: int | None = None
    """Rows per item, for ``tokens=random``."""
    layout: str = "auto"
    """Layout of 4-D outputs: ``auto``, ``channels_first`` or ``channels_last``."""
    norm_filter: str = "none"
    """What to do with rows far above the median norm: ``none``, ``drop`` or ``clip``."""
    norm_factor: float = 10.0
    """Limit of the norm filter, in units of the median norm of a sample."""
    batch_size: int = 32
    """Items (images, windows of text) in one forward pass."""
    workers: int | None = None
    """Processes that read examples; None: up to 8 with a GPU, otherwise none."""
    seed: int = 0
    """Seed of ``tokens=random``, and of random weights if requested."""
    check_rows: bool = True
    """Refuse a network whose rows depend on chance or on the rest of their batch."""
    limit: int | None = None
    """Number of examples to take, from the first; None: all."""

    def __post_init__(self) -> None:
        self._model, self._inputs = build(Model, self.model), build(Inputs, self.inputs)
        self.selector = Selector(self.tokens, self.number, self.layout, self.seed)
        self.norms = NormFilter(self.norm_filter, self.norm_factor)
        whole_number("batch_size", self.batch_size, 1)
        if self.limit is not None:
            self._inputs = FirstExamples(self._inputs, whole_number("limit", self.limit, 1))
        self.model, self.inputs = self._model, self._inputs

    @cached_property
    def loaded(self) -> Loaded:
        """The network and its feed; random weights are the same in every process."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self._model.load(self._inputs.kind)

    def harvester(self, device: torch.device) -> Harvester:
        """Move the network to ``device`` and find its layers."""
        workers = self.workers
        if workers is None:
            spare = max(0, (os.cpu_count() or 1) - 1)
            workers = min(WORKERS_BESIDE_A_GPU, spare) if device.type == "cuda" else 0
        layers = match_layers(self.loaded.network, self.layers)
        return Harvester(
            self.loaded,
            self._inputs,
            layers,
            self.selector,
            self.batch_size,
            self.norms,
            device,
            workers,
            check_rows=self.check_rows,
        )

    def settings(self, layers: Sequence[Any]) -> dict[str, Any]:
        """Return everything that the rows depend on, as plain values for a manifest."""
        unused = ("number", "seed") if self.tokens != "random" else ()
        selector = {key: value for key, value in asdict(self.selector).items() if key not in unused}
        norms = {"name": self.norms.name, "factor": self.norms.factor}
        return {
            "model": self.loaded.description, "inputs": describe_inputs(self._inputs),
            "layers": [str(layer) for layer in layers], "selector": selector,
            "norm_filter": None if self.norms.name == "none" else norms,
        }  # fmt: skip


@dataclass
class FirstExamples(Inputs):
    """The first ``limit`` examples of other inputs."""

    inputs: Inputs
    limit: int

    def __post_init__(self) -> None:
        self.kind = self.inputs.kind  # type: ignore[misc]

    def __len__(self) -> int:
        return min(self.limit, len(self.inputs))

    def read(self, example: int) -> Any:
        return self.inputs.read(example)

    def digest(self) -> str:
        return self.inputs.digest()

    def identify(self, example: int) -> str:
        return self.inputs.identify(example)


def describe_inputs(inputs: Inputs) -> dict[str, Any]:
    """Return a plain mapping that restores the inputs, with their number and digest."""
    if isinstance(inputs, FirstExamples):
        return describe_inputs(inputs.inputs) | {"examples": len(inputs)}
    return spec_of(inputs) | {"examples": len(inputs), "content": inputs.digest()}


def make_inputs(description: Mapping[str, Any]) -> Inputs:
    """Restore inputs from :func:`describe_inputs`; only classes of ``harvest/inputs``."""
    added = ("examples", "content", "digest")  # `digest` is from version 0.1
    return build(Inputs, {key: value for key, value in description.items() if key not in added})
