"""A harvest to disk: planned, predicted, written shard by shard, resumed."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from seminmf_lightning.core.checks import one_of, real_number, whole_number
from seminmf_lightning.harvest.harvester import Harvester, norm_limits, row_norms
from seminmf_lightning.harvest.layers import Layer
from seminmf_lightning.harvest.row_selection import Rows
from seminmf_lightning.harvest.store import FORMAT, Store, StoreError

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
PROBED_EXAMPLES = 64
INDEX_BYTES = 28  # a row
ROOM = 1.02  # of the predicted size that must be free
OUTLIER = 20.0  # times the median norm: worth a warning
SECONDS_TO_WAIT = 600.0


class Progress(NamedTuple):
    """Where a harvest stands, for whoever shows it."""

    examples: int
    of: int
    rows: int
    skipped: int


@dataclass
class HarvestJob:
    """Writes the rows of ``harvester`` to ``store``.

    ``settings`` is the plain description of what is harvested: a store that holds something else is refused.
    Process ``rank`` of ``world`` writes every ``world``-th shard.
    """

    harvester: Harvester
    store: Store
    settings: dict[str, Any]
    dtype: str = "float16"
    shard_mb: float = 32.0
    max_skipped: float = 0.01
    """Share of the examples that may be unreadable."""
    rank: int = 0
    world: int = 1
    tell: Callable[[str], None] = print
    show: Callable[[Progress], None] = lambda progress: None

    def __post_init__(self) -> None:
        one_of("dtype", self.dtype, tuple(DTYPES))
        real_number("shard_mb", self.shard_mb, 0, exclusive=True)
        real_number("max_skipped", self.max_skipped, 0, below=1.0000001)
        whole_number("rank", self.rank, 0)

    # --- the whole
    # -----------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any] | None:
        """Write what is missing; return the finished manifest, or None if other processes still work.

        Raises:
            StoreError: the store holds another harvest, or a damaged shard.
            ValueError: too many unreadable examples, or activations that cannot be stored.
            OSError: the disk cannot hold it.
        """
        plan = self.prepare()
        self.harvester.dtype = DTYPES[self.dtype]
        self.harvester.norm_filter = replace(self.harvester.norm_filter, limits=plan["norm_limits"])
        count = len(self.harvester.inputs)
        shards = math.ceil(count / plan["examples_per_shard"])
        mine = range(self.rank, shards, self.world)
        todo = [shard for shard in mine if not self._is_whole(shard, plan)]
        done = sum(len(self._range(shard, plan)) for shard in mine if shard not in set(todo))
        skipped = sum(self._skipped(shard) for shard in mine if shard not in set(todo))
        if len(todo) < len(mine):
            self.tell(
                f"{len(mine) - len(todo)} of {len(mine)} shards are whole already; going on with the others"
            )
        total, rows = sum(len(self._range(shard, plan)) for shard in mine), 0
        reads = self.harvester.read(example for shard in todo for example in self._range(shard, plan))
        for shard in todo:
            found: dict[Layer, list[Rows]] = {layer: [] for layer in self.harvester.layers}
            filtered, norm_sums = (
                dict.fromkeys(self.harvester.layers, 0),
                dict.fromkeys(self.harvester.layers, 0.0),
            )
            records: list[dict[str, Any]] = []
            for pool in self.harvester.pools(islice(reads, len(self._range(shard, plan)))):
                for read in (read for read in pool if read.part == 0):
                    reason = {} if read.skipped is None else {"skipped": read.skipped}
                    records.append({"example": read.example, "name": read.name} | read.record | reason)
                skipped += sum(read.skipped is not None for read in pool)
                if skipped > self.max_skipped * count:
                    self._too_many(skipped, count, [record for record in records if "skipped" in record])
                harvested = self.harvester.harvest(pool)
                done += sum(read.part == 0 for read in pool)
                if harvested is not None:
                    for layer, more in harvested.rows.items():
                        found[layer].append(Rows(more.values.cpu(), more.origin))
                        filtered[layer] += harvested.filtered[layer]
                        norm_sums[layer] += harvested.norm_sums[layer]
                    rows += len(more.values)
                self.show(Progress(done, total, rows, skipped))
            self._write(shard, plan, found, filtered, norm_sums, records)
        return self._finish(plan, shards)

    def _write(
        self, shard: int, plan: dict[str, Any], found: Mapping[Layer, list[Rows]], filtered: Mapping[Layer, int],
        norm_sums: Mapping[Layer, float], records: list[dict[str, Any]],
    ) -> None:  # fmt: skip
        self.store.write_examples(shard, records)
        examples = self._range(shard, plan)
        for layer, parts in found.items():
            rows = (
                Rows.join(parts)
                if parts
                else Rows(torch.zeros(0, plan["widths"][str(layer)], dtype=DTYPES[self.dtype]), {})
            )
            record = {
                "harvest": plan["harvest"], "examples": [examples.start, examples.stop], "filtered": filtered[layer],
                "norm_sum": norm_sums[layer],
                "skipped": sum("skipped" in record for record in records),
            }  # fmt: skip
            self.store.write_shard(shard, str(layer), rows.values, rows.origin, record)

    def _too_many(self, skipped: int, count: int, listed: list[dict[str, Any]]) -> None:
        reasons = "".join(f"\n  {record['skipped']}" for record in listed[:5])
        raise ValueError(
            f"{skipped} of {count} examples cannot be read, more than max_skipped={self.max_skipped:.2%} allows:{reasons}"
        )

    # --- plan
    # ----------------------------------------------------------------------------------------------------

    @property
    def _harvest(self) -> str:
        """A short name for what is harvested."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:16]

    def prepare(self) -> dict[str, Any]:
        """The plan on disk, or a new one from a look at some examples.  Only process 0 makes it.

        Raises:
            StoreError, OSError: as :meth:`run`.
        """
        deadline = time.monotonic() + SECONDS_TO_WAIT
        while (manifest := self.store.manifest()) is None and self.rank > 0:
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{self.store.folder}: process 0 has written no manifest in {SECONDS_TO_WAIT:.0f} seconds"
                )
            time.sleep(0.2)
        if manifest is not None:
            if differences := list(_differences(manifest["settings"], self.settings)):
                raise StoreError(
                    f"{self.store.folder} holds another harvest; choose another output, or delete it. It differs in "
                    + "; ".join(differences[:6])
                )
            if self.rank == 0:
                self.store.clean()
            return manifest["plan"]
        if self.store.folder.exists() and any(self.store.folder.iterdir()):
            raise StoreError(
                f"{self.store.folder} is not empty and holds no manifest.json; choose another output"
            )
        plan = self._probe()
        self.store.write_manifest(
            {"format": FORMAT, "complete": False, "settings": self.settings, "plan": plan}
        )
        return plan

    def _probe(self) -> dict[str, Any]:
        """Look at examples from all over the inputs: rows an example, norms, seconds; refuse what the disk
        cannot hold."""
        harvester, count = self.harvester, len(self.harvester.inputs)
        picked = np.unique(np.linspace(0, count - 1, min(count, PROBED_EXAMPLES)).astype(int)).tolist()
        began = time.monotonic()
        reads = list(harvester.read(picked))
        reading = (time.monotonic() - began) / len(picked)
        readable = [read for read in reads if read.items]
        if not readable:
            raise ValueError(
                f"none of {len(picked)} examples looked at can be read:\n  {reads[0].skipped or 'no tokens'}"
            )
        sample = harvester.few(readable)
        harvester.harvest(sample[:1])  # warm up
        began = time.monotonic()
        found = harvester.harvest(sample)
        seconds = time.monotonic() - began
        assert found is not None
        items = sum(len(read.items) for read in sample)
        items_an_example = statistics.fmean(len(read.items) for read in reads)
        limits, size, rows = norm_limits(found.rows, harvester.norm_filter.factor), 0, {}
        for layer, part in found.rows.items():
            if not len(part.values):
                raise ValueError(
                    f"layer {layer!s} gives no rows for {sample[0].name}; another choice of tokens may"
                )
            median = limits.get(str(layer), 0.0) / harvester.norm_filter.factor
            largest = float(row_norms(part.values).max())
            if largest > OUTLIER * median > 0 and harvester.norm_filter.name == "none":
                self.tell(
                    f"layer {layer!s}: a row's norm is {largest / median:,.0f} times the median; "
                    "norm_filter=drop or norm_filter=clip keeps such rows from ruling the dictionary"
                )
            rows[layer] = len(part.values) / items * items_an_example * count
            size += int(rows[layer] * (part.values.shape[1] * DTYPES[self.dtype].itemsize + INDEX_BYTES))
        size += int(statistics.fmean(len(json.dumps(read.record)) for read in reads) * count)
        self._foretell(rows, size, (seconds / items * items_an_example + reading) * count / self.world)
        widest = max(part.values.shape[1] * rows[layer] for layer, part in found.rows.items())
        shards = max(1, math.ceil(widest * DTYPES[self.dtype].itemsize / (self.shard_mb * 2**20)))
        return {
            "examples": count, "examples_per_shard": math.ceil(count / shards), "norm_limits": limits,
            "widths": {str(layer): part.values.shape[1] for layer, part in found.rows.items()}, "harvest": self._harvest,
        }  # fmt: skip

    def _foretell(self, rows: Mapping[Layer, float], size: int, seconds: float) -> None:
        free = shutil.disk_usage(_existing(self.store.folder)).free
        parts = ", ".join(f"{value:,.0f} rows of {layer!s}" for layer, value in rows.items())
        self.tell(
            f"predicted: {parts}; {size / 2**20:,.1f} MB ({free / 2**30:,.1f} GB free), about {_duration(seconds)}"
        )
        if size * ROOM > free:
            raise OSError(
                f"the disk of {self.store.folder} has {free / 2**20:,.0f} MB free, and this harvest needs about "
                f"{size * ROOM / 2**20:,.0f} MB; make room, choose another output, or take fewer layers, tokens or examples"
            )

    # --- shards
    # --------------------------------------------------------------------------------------------------

    def _range(self, shard: int, plan: dict[str, Any]) -> range:
        each = plan["examples_per_shard"]
        return range(shard * each, min((shard + 1) * each, plan["examples"]))

    def _is_whole(self, shard: int, plan: dict[str, Any]) -> bool:
        for layer in self.harvester.layers:
            record = self.store.record(str(layer), shard)
            if record is None:
                return False
            if record["harvest"] != plan["harvest"]:
                raise StoreError(
                    f"{self.store.files(str(layer), shard).activations} belongs to another harvest; delete it"
                )
        return self.store.examples_file(shard).exists()

    def _skipped(self, shard: int) -> int:
        record = self.store.record(str(self.harvester.layers[0]), shard)
        return 0 if record is None else record["skipped"]

    def _finish(self, plan: dict[str, Any], shards: int) -> dict[str, Any] | None:
        """The manifest, written by whichever process finds all shards whole."""
        if not all(self._is_whole(shard, plan) for shard in range(shards)):
            return None
        manifest = finished_manifest(self.store, self.settings, plan)
        if manifest["skipped"] > self.max_skipped * plan["examples"]:
            self._too_many(manifest["skipped"], plan["examples"], manifest["skipped_examples"])
        self.store.write_manifest(manifest)
        return manifest


def finished_manifest(store: Store, settings: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    """What the manifest says of the shards that are on disk."""
    count = math.ceil(plan["examples"] / plan["examples_per_shard"])
    layers: dict[str, Any] = {}
    for layer, width in plan["widths"].items():
        listed, total, norms = [], torch.zeros((), dtype=torch.float64), 0.0
        for shard in (shard for shard in store.shards(layer) if shard < count):
            record = store.record(layer, shard)
            if record is not None:
                files = store.files(layer, shard)
                names = {"file": files.activations, "index": files.origin}
                listed.append(
                    {"shard": shard}
                    | {key: str(path.relative_to(store.folder)) for key, path in names.items()}
                    | record
                )
                if len(summed := store.columns(layer, shard)["sum"]) != width:
                    raise StoreError(
                        f"{files.origin}: the sum of rows of {len(summed)} features; the plan says {width}"
                    )
                total = total + summed
                norms += record["norm_sum"]
        rows = sum(record["rows"] for record in listed)
        layers[layer] = {
            "features": width, "rows": rows, "mean_row_norm": norms / max(rows, 1),
            "filtered": sum(record["filtered"] for record in listed),
            "mean": (total / max(rows, 1)).tolist() if listed else [], "shards": listed,
        }  # fmt: skip
    written = sorted({record["shard"] for layer in layers.values() for record in layer["shards"]})
    skipped = [record for shard in written for record in store.examples(shard) if "skipped" in record]
    whole = all(len(layer["shards"]) == count for layer in layers.values())
    return {
        "format": FORMAT, "complete": whole, "settings": settings, "plan": plan, "skipped": len(skipped),
        "skipped_examples": skipped[:1000], "layers": layers,
    }  # fmt: skip


def _differences(found: Any, wanted: Any, key: str = "") -> Iterator[str]:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for name in sorted(set(found) | set(wanted)):
            yield from _differences(found.get(name), wanted.get(name), f"{key}.{name}" if key else str(name))
    elif found != wanted:
        yield f"{key}: {found!r} there, {wanted!r} here"


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _duration(seconds: float) -> str:
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {left:02d} s" if minutes else f"{left} s"
    )
