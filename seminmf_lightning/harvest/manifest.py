"""The manifest of a store: what was harvested, and its shards."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from seminmf_lightning.io.schema import conform
from seminmf_lightning.io.untrusted import Refused, parse_json

FORMAT = 1
MANIFEST = "manifest.json"
LARGEST = 2**40
"""Most features of a layer, most examples of a shard: the product of two must not overflow 64 bits."""

RECORD = {"harvest": str, "examples": [int], "filtered": int, "norm_sum": float, "skipped": int,
          "rows": int, "bytes": int, "sha256": str}  # fmt: skip
LAYER = {"features": int, "rows": int, "shards": [RECORD | {"shard": int, "file": str, "index": str}]}
UNFINISHED = {
    "format": int, "complete": bool, "settings": {"inputs": dict},
    "plan": {"examples": int, "examples_per_shard": int, "harvest": str, "widths": {str: int},
             "layouts?": {str: {"channels_last": bool, "prefix": int, "suffix": int, "unplaced?": str}}},
}  # fmt: skip

StoreError = Refused
"""A store cannot be used: the message names the file, what was found and what to do."""


def shard_count(plan: dict[str, Any]) -> int:
    """Return the number of shards of a plan.

    >>> shard_count({"examples": 10, "examples_per_shard": 4})
    3
    """
    return math.ceil(plan["examples"] / plan["examples_per_shard"])


def examples_of_shard(shard: int, plan: dict[str, Any]) -> range:
    """Return the numbers of the examples of one shard.

    >>> examples_of_shard(2, {"examples": 10, "examples_per_shard": 4})
    range(8, 10)
    """
    each = plan["examples_per_shard"]
    return range(shard * each, min((shard + 1) * each, plan["examples"]))


def parse_manifest(content: bytes, path: Path | str) -> dict[str, Any]:
    """Parse and check a manifest.

    Raises:
        StoreError: it is not a manifest that this version reads.
    """
    manifest = parse_json(path, content, "a manifest of harvested activations")
    conform(path, manifest, {"format": int})
    if manifest["format"] != FORMAT:
        raise StoreError(f"{path}: format {manifest['format']}; this version reads format {FORMAT}")
    conform(path, manifest, UNFINISHED)
    plan = manifest["plan"]
    if not 0 < plan["examples_per_shard"] <= LARGEST:
        raise StoreError(
            f"{path}: plan.examples_per_shard is {plan['examples_per_shard']}; expected at least 1"
        )
    if manifest["complete"]:
        conform(path, manifest, {"layers": {str: LAYER}})
        for name, layer in manifest["layers"].items():
            _check_layer(path, name, layer, shard_count(plan))
    return manifest


def _check_layer(path: Path | str, name: str, layer: dict[str, Any], shards: int) -> None:
    """Require every shard once and the right sum of rows, so that none is lost silently."""
    records = layer["shards"]
    if not 0 < layer["features"] <= LARGEST:
        raise StoreError(f"{path}: layers[{name!r}].features is {layer['features']}; expected at least 1")
    if len(records) != shards or any(record["shard"] != number for number, record in enumerate(records)):
        raise StoreError(
            f"{path}: layer {name!r} lists {len(records)} shards; its plan has {shards}, in order"
        )
    ranges = [record["examples"] for record in records]
    if any(len(examples) != 2 or examples[0] > examples[1] for examples in ranges):
        raise StoreError(f"{path}: layer {name!r} has a shard whose examples are not a range")
    if (rows := sum(record["rows"] for record in records)) != layer["rows"]:
        raise StoreError(f"{path}: layer {name!r} has {layer['rows']} rows, but its shards have {rows}")
