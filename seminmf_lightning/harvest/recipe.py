"""What to harvest, in plain settings: a model, inputs, layers, and which positions become rows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch

from seminmf_lightning.core.checks import whole_number
from seminmf_lightning.core.discovery import build, spec_of
from seminmf_lightning.harvest.harvester import Harvester, NormFilter
from seminmf_lightning.harvest.inputs import Inputs
from seminmf_lightning.harvest.layers import match_layers
from seminmf_lightning.harvest.models import Model
from seminmf_lightning.harvest.row_selection import Selector

WORKERS_BESIDE_A_GPU = 8


@dataclass
class HarvestRecipe:
    """``model`` and ``inputs`` are a mapping with a ``name`` (a file of ``harvest/models`` or
    ``harvest/inputs``) and the settings of that class.

    Raises:
        TypeError, ValueError: a bad setting; the message names it and says what is accepted.
    """

    model: Model | Mapping[str, Any]
    inputs: Inputs | Mapping[str, Any]
    layers: str | Sequence[str] = ()
    """Dotted paths or globs; see :mod:`seminmf_lightning.harvest.layers`."""
    tokens: str = "no_special"
    number: int | None = None
    layout: str = "auto"
    norm_filter: str = "none"
    norm_factor: float = 10.0
    """Times the median norm of a sample: above it ``norm_filter`` drops rows or clips them."""
    batch_size: int = 32
    """Items (pictures, windows of text) the network is shown at once."""
    workers: int | None = None
    """Processes that read examples; None: beside a GPU up to 8, else none."""
    seed: int = 0
    limit: int | None = None
    """Take only so many examples, the first; None: all."""

    def __post_init__(self) -> None:
        self.model = build(Model, self.model)
        self.inputs = build(Inputs, self.inputs)
        self.selector = Selector(self.tokens, self.number, self.layout, self.seed)
        self.norms = NormFilter(self.norm_filter, self.norm_factor)
        whole_number("batch_size", self.batch_size, 1)
        if self.limit is not None:
            self.inputs = First(self.inputs, whole_number("limit", self.limit, 1))

    @cached_property
    def loaded(self) -> Any:
        assert isinstance(self.model, Model) and isinstance(self.inputs, Inputs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(
                self.seed
            )  # random weights, where they are asked for, are the same in each process
            return self.model.load(self.inputs.kind)

    def harvester(self, device: torch.device) -> Harvester:
        """The network on ``device``, its layers found."""
        assert isinstance(self.inputs, Inputs)
        beside = min(WORKERS_BESIDE_A_GPU, max(0, (os.cpu_count() or 1) - 1))
        workers = (beside if device.type == "cuda" else 0) if self.workers is None else self.workers
        layers = match_layers(self.loaded.network, self.layers)
        return Harvester(
            self.loaded, self.inputs, layers, self.selector, self.batch_size, self.norms, device, workers
        )

    def settings(self, layers: Sequence[Any]) -> dict[str, Any]:
        """Everything that the rows depend on, plain, for a manifest."""
        assert isinstance(self.inputs, Inputs)
        drawn = ("number", "seed") if self.tokens != "random" else ()  # of no consequence
        selector = {key: value for key, value in asdict(self.selector).items() if key not in drawn}
        return {
            "model": self.loaded.description, "inputs": describe_inputs(self.inputs),
            "layers": [str(layer) for layer in layers], "selector": selector,
            "norm_filter": None if self.norms.name == "none" else {"name": self.norms.name, "factor": self.norms.factor},
        }  # fmt: skip


@dataclass
class First(Inputs):
    """The first examples of other inputs."""

    inputs: Inputs
    limit: int

    def __post_init__(self) -> None:
        self.kind = self.inputs.kind  # type: ignore[misc]

    def __len__(self) -> int:
        return min(self.limit, len(self.inputs))

    def read(self, example: int) -> Any:
        return self.inputs.read(example)

    def identify(self, example: int) -> str:
        return self.inputs.identify(example)


def describe_inputs(inputs: Inputs) -> dict[str, Any]:
    """The plain mapping that makes equal inputs again, and how many examples they hold."""
    if isinstance(inputs, First):
        return describe_inputs(inputs.inputs) | {"examples": len(inputs)}
    return spec_of(inputs) | {"examples": len(inputs), "digest": inputs.digest()}


def make_inputs(description: Mapping[str, Any]) -> Inputs:
    """Inputs from what :func:`describe_inputs` said of them.  Only classes of ``harvest/inputs`` can be
    named."""
    return build(
        Inputs, {key: value for key, value in description.items() if key not in ("examples", "digest")}
    )
