"""Harvest to disk: plan, predict, write shard by shard, resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import torch

from seminmf_lightning.core.checks import one_of, real_number, whole_number
from seminmf_lightning.harvest.harvester import Harvested, Harvester
from seminmf_lightning.harvest.layers import Layer
from seminmf_lightning.harvest.layout import Layout
from seminmf_lightning.harvest.manifest import FORMAT, examples_of_shard, shard_count
from seminmf_lightning.harvest.plan import DTYPES, make_plan
from seminmf_lightning.harvest.reading import Read
from seminmf_lightning.harvest.row_selection import Rows
from seminmf_lightning.harvest.store import Store, StoreError

MANIFEST_TIMEOUT = 600.0
"""Seconds that other processes wait for the plan of process 0."""


class Progress(NamedTuple):
    """State of a harvest, for a progress bar."""

    examples: int
    of: int
    rows: int
    skipped: int


@dataclass
class HarvestJob:
    """Writes the rows of ``harvester`` to ``store``.

    ``settings`` describe the harvest in plain values; a store with other settings is refused.
    Process ``rank`` of ``world`` writes every ``world``-th shard.
    """

    harvester: Harvester
    store: Store
    settings: dict[str, Any]
    dtype: str = "float16"
    """Type of the rows on disk."""
    shard_mb: float = 32.0
    """Size of a shard, MB."""
    max_skipped: float = 0.01
    """Largest accepted share of unreadable examples."""
    rank: int = 0
    world: int = 1
    tell: Callable[[str], None] = print
    show: Callable[[Progress], None] = lambda progress: None

    def __post_init__(self) -> None:
        one_of("dtype", self.dtype, tuple(DTYPES))
        real_number("shard_mb", self.shard_mb, 0, exclusive=True)
        real_number("max_skipped", self.max_skipped, 0, at_most=1)
        whole_number("rank", self.rank, 0)

    def run(self) -> dict[str, Any] | None:
        """Write the missing shards; return the finished manifest, or None while other processes still work.

        Raises:
            StoreError: the store holds another harvest, or a damaged shard.
            ValueError: too many unreadable examples, or activations that cannot be stored.
            OSError: the disk is too small.
        """
        plan = self.prepare()
        self.harvester.dtype = DTYPES[self.dtype]
        self.harvester.norm_filter = replace(self.harvester.norm_filter, limits=plan["norm_limits"])
        layouts = plan.get("layouts", {})  # absent from stores of 0.1.0
        self.harvester.layouts = {layer: Layout.from_plain(layout) for layer, layout in layouts.items()}
        mine = range(self.rank, shard_count(plan), self.world)
        missing = [shard for shard in mine if not self._is_complete(shard, plan)]
        present = [shard for shard in mine if shard not in set(missing)]
        if present:
            self.tell(f"{len(present)} of {len(mine)} shards are complete already; harvesting the others")
        done = sum(len(examples_of_shard(shard, plan)) for shard in present)
        progress = Progress(
            done, done + sum(len(examples_of_shard(shard, plan)) for shard in missing), 0,
            sum(self._skipped(shard) for shard in present),
        )  # fmt: skip
        reads = self.harvester.read(number for shard in missing for number in examples_of_shard(shard, plan))
        for shard in missing:
            progress = self._harvest_shard(shard, plan, reads, progress)
        return self._finish(plan)

    def _harvest_shard(
        self, shard: int, plan: dict[str, Any], reads: Iterator[Read], progress: Progress
    ) -> Progress:
        """Harvest and write the examples of one shard, the next ones in ``reads``."""
        parts: dict[Layer, list[Harvested]] = {layer: [] for layer in self.harvester.layers}
        records: list[dict[str, Any]] = []
        for pool in self.harvester.pools(islice(reads, len(examples_of_shard(shard, plan)))):
            for read in (read for read in pool if read.part == 0):
                reason = {} if read.skipped is None else {"skipped": read.skipped}
                records.append({"example": read.example, "name": read.name} | read.record | reason)
            skipped = progress.skipped + sum(read.skipped is not None for read in pool)
            self._check_skipped(skipped, plan["examples"], records)
            harvested, rows = self.harvester.harvest(pool), 0
            if harvested is not None:
                for layer, more in harvested.rows.items():
                    on_cpu = {layer: Rows(more.values.cpu(), more.origin)}
                    parts[layer].append(harvested._replace(rows=on_cpu))
                rows = len(more.values)
            examples = progress.examples + sum(read.part == 0 for read in pool)
            progress = Progress(examples, progress.of, progress.rows + rows, skipped)
            self.show(progress)
        self._write(shard, plan, parts, records)
        return progress

    def _write(
        self, shard: int, plan: dict[str, Any], parts: Mapping[Layer, list[Harvested]],
        records: list[dict[str, Any]],
    ) -> None:  # fmt: skip
        self.store.write_examples(shard, records)
        examples = examples_of_shard(shard, plan)
        for layer, harvested in parts.items():
            empty = Rows(torch.zeros(0, plan["widths"][str(layer)], dtype=DTYPES[self.dtype]), {})
            rows = Rows.join([part.rows[layer] for part in harvested]) if harvested else empty
            norm_sum = 0.0
            for part in harvested:  # not sum(), which rounds otherwise from Python 3.12 on
                norm_sum += part.norm_sums[layer]
            record = {
                "harvest": plan["harvest"], "examples": [examples.start, examples.stop],
                "filtered": sum(part.filtered[layer] for part in harvested),
                "norm_sum": norm_sum, "skipped": sum("skipped" in record for record in records),
            }  # fmt: skip
            self.store.write_shard(shard, str(layer), rows.values, rows.origin, record)

    def _check_skipped(self, skipped: int, examples: int, records: list[dict[str, Any]]) -> None:
        if skipped > self.max_skipped * examples:
            reasons = [record["skipped"] for record in records if "skipped" in record][:5]
            raise ValueError(
                f"{skipped} of {examples} examples cannot be read, more than "
                f"max_skipped={self.max_skipped:.2%} allows:" + "".join(f"\n  {reason}" for reason in reasons)
            )

    def prepare(self) -> dict[str, Any]:
        """Return the plan on disk, or write a new one (process 0 only).  Raises as :meth:`run`."""
        manifest = self._manifest()
        if manifest is None:
            if self.store.folder.exists() and any(self.store.folder.iterdir()):
                raise StoreError(
                    f"{self.store.folder} is not empty and holds no manifest.json; choose another output"
                )
            plan = make_plan(
                self.harvester, self.settings, self.store.folder, dtype=DTYPES[self.dtype],
                shard_mb=self.shard_mb, world=self.world, tell=self.tell,
            )  # fmt: skip
            content = {"format": FORMAT, "complete": False, "settings": self.settings, "plan": plan}
            self.store.write_manifest(content)
            return plan
        stored = manifest["settings"]
        if "content" not in stored["inputs"]:  # written by version 0.1
            self.tell(
                f"{self.store.folder} was begun by version 0.1, which kept no digest of its inputs "
                "and of its tokenizer: check that they have not changed since"
            )
            inputs = {key: value for key, value in stored["inputs"].items() if key != "digest"}
            stored = _completed(stored | {"inputs": inputs}, self.settings)
        if differences := list(_differences(stored, self.settings)):
            raise StoreError(
                f"{self.store.folder} holds another harvest; choose another output, or delete it. "
                "It differs in " + "; ".join(differences[:6])
            )
        if self.rank == 0:
            self.store.clean()
        return manifest["plan"]

    def _manifest(self) -> dict[str, Any] | None:
        """Read the manifest; every process but the first waits until there is one."""
        deadline = time.monotonic() + MANIFEST_TIMEOUT
        while (manifest := self.store.manifest()) is None and self.rank > 0:
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{self.store.folder}: process 0 wrote no manifest within {MANIFEST_TIMEOUT:.0f} seconds"
                )
            time.sleep(0.2)
        return manifest

    def _is_complete(self, shard: int, plan: dict[str, Any]) -> bool:
        for layer in self.harvester.layers:
            record = self.store.record(str(layer), shard)
            if record is None:
                return False
            if record["harvest"] != plan["harvest"]:
                file = self.store.files(str(layer), shard).activations
                raise StoreError(f"{file} belongs to another harvest; delete it")
        return self.store.examples_file(shard).exists()

    def _skipped(self, shard: int) -> int:
        record = self.store.record(str(self.harvester.layers[0]), shard)
        return 0 if record is None else record["skipped"]

    def _finish(self, plan: dict[str, Any]) -> dict[str, Any] | None:
        """Write the manifest, in the process that finishes last."""
        if not all(self._is_complete(shard, plan) for shard in range(shard_count(plan))):
            return None
        manifest = self.store.finished_manifest(self.settings, plan)
        self._check_skipped(manifest["skipped"], plan["examples"], manifest["skipped_examples"])
        self.store.write_manifest(manifest)
        return manifest


def _completed(stored: Any, current: Any) -> Any:
    """Return stored settings with those of today that they lack."""
    if not (isinstance(stored, Mapping) and isinstance(current, Mapping)):
        return stored
    return dict(current) | {key: _completed(value, current.get(key)) for key, value in stored.items()}


def _differences(stored: Any, current: Any, key: str = "") -> Iterator[str]:
    """Yield the settings that differ, each with both values."""
    if isinstance(stored, Mapping) and isinstance(current, Mapping):
        for name in sorted(set(stored) | set(current)):
            yield from _differences(
                stored.get(name), current.get(name), f"{key}.{name}" if key else str(name)
            )
    elif stored != current:
        yield f"{key}: {stored!r} there, {current!r} here"
