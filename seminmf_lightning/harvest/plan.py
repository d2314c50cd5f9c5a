"""Plan a harvest to disk from a small sample: size, duration, norm limits, shards."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seminmf_lightning.harvest.harvester import Harvester
from seminmf_lightning.harvest.layout import WITHOUT_PATCHES
from seminmf_lightning.harvest.norm_filter import norm_limits, row_norms

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
SAMPLED_EXAMPLES = 64
INDEX_BYTES = 28
"""Bytes on disk for the origin of one row."""
HEADROOM = 1.02
"""Free space required, as a multiple of the predicted size."""
OUTLIER = 20.0
"""A row whose norm is above this many median norms gets a warning."""


def make_plan(
    harvester: Harvester, settings: Mapping[str, Any], folder: Path, *,
    dtype: torch.dtype, shard_mb: float, world: int, tell: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    """Harvest a sample spread over the inputs and plan the whole; ``tell`` gets predictions and warnings.

    Raises:
        ValueError: no example of the sample can be read, or a layer gives no rows.
        OSError: the disk cannot hold the predicted size.
    """
    count = len(harvester.inputs)
    sampled = np.unique(np.linspace(0, count - 1, min(count, SAMPLED_EXAMPLES)).astype(int)).tolist()
    began = time.monotonic()
    reads = list(harvester.read(sampled))
    seconds_per_read = (time.monotonic() - began) / len(sampled)
    sample = harvester.few(reads)
    if not sample:
        reason = reads[0].skipped or "no tokens"
        raise ValueError(f"none of {len(sampled)} sampled examples can be read:\n  {reason}")
    harvester.check(sample)
    harvester.harvest(sample[:1])  # warm up before the clock starts
    began = time.monotonic()
    harvested = harvester.harvest(sample)
    seconds = time.monotonic() - began
    assert harvested is not None

    for layer_name, layout in harvester.layouts.items():
        if layout.unplaced not in (None, WITHOUT_PATCHES):
            tell(f"layer {layer_name}: its rows have no position in the image, because {layout.unplaced}")
    items = sum(len(read.items) for read in sample)
    items_per_example = statistics.fmean(len(read.items) for read in reads)
    limits = norm_limits(harvested.rows, harvester.norm_filter.factor)
    size, rows = 0, {}
    for layer, part in harvested.rows.items():
        if not len(part.values):
            raise ValueError(f"layer {layer!s} gives no rows for {sample[0].name}; try another tokens=...")
        median = limits.get(str(layer), 0.0) / harvester.norm_filter.factor
        largest = float(row_norms(part.values).max())
        if largest > OUTLIER * median > 0 and harvester.norm_filter.name == "none":
            tell(
                f"layer {layer!s}: the norm of one row is {largest / median:,.0f} times the median; "
                "norm_filter=drop or norm_filter=clip keeps such rows from dominating the dictionary"
            )
        rows[layer] = len(part.values) / items * items_per_example * count
        size += int(rows[layer] * (part.values.shape[1] * dtype.itemsize + INDEX_BYTES))
    size += int(statistics.fmean(len(json.dumps(read.record)) for read in reads) * count)
    duration = (seconds / items * items_per_example + seconds_per_read) * count / world
    parts = ", ".join(f"{value:,.0f} rows of {layer!s}" for layer, value in rows.items())
    tell(f"predicted: {parts}; {size / 2**20:,.1f} MB, about {_duration(duration)}")
    _check_free_space(folder, size)

    largest_layer = max(part.values.shape[1] * rows[layer] for layer, part in harvested.rows.items())
    shards = max(1, math.ceil(largest_layer * dtype.itemsize / (shard_mb * 2**20)))
    return {
        "examples": count, "examples_per_shard": math.ceil(count / shards), "norm_limits": limits,
        "widths": {str(layer): part.values.shape[1] for layer, part in harvested.rows.items()},
        "layouts": {layer: layout.plain() for layer, layout in harvester.layouts.items()},
        "harvest": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16],
    }  # fmt: skip


def _check_free_space(folder: Path, size: int) -> None:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if size * HEADROOM > free:
        raise OSError(
            f"the disk of {folder} has {free / 2**20:,.0f} MB free, and this harvest needs about "
            f"{size * HEADROOM / 2**20:,.0f} MB; make room, choose another output, or take fewer layers, "
            "tokens or examples"
        )


def _duration(seconds: float) -> str:
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {left:02d} s" if minutes else f"{left} s"
