"""Harvest activations to disk:  python scripts/harvest.py experiment=minilm_pydoc

Every key is in configs/harvest/harvest.yaml and the groups beside it; ``--list`` prints the layers of a
model. Run the same command again to go on after an interruption; under torchrun each process writes its part.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import hydra
import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from seminmf_lightning.cli.build import choose_device, plain, quieten, register_schemas
from seminmf_lightning.harvest import HarvestJob, HarvestRecipe, Store
from seminmf_lightning.harvest.job import Progress as Standing

RECIPE_KEYS = (
    "model", "inputs", "layers", "tokens", "number", "layout", "norm_filter", "norm_factor", "batch_size", "workers", "seed",
    "limit",
)  # fmt: skip

register_schemas()
console = Console()


def main() -> None:
    sys.argv = ["list=true" if argument == "--list" else argument for argument in sys.argv]
    harvest_command()


@hydra.main(version_base="1.3", config_path="pkg://seminmf_lightning.configs.harvest", config_name="harvest")
def harvest_command(cfg: DictConfig) -> None:
    quieten()
    try:
        if cfg.list:
            list_layers(cfg)
        else:
            harvest(cfg)
    except KeyboardInterrupt:
        say(f"stopped; the shards in {cfg.output} are whole, and the same command goes on from there")
        sys.exit(130)


def harvest(cfg: DictConfig) -> dict[str, Any] | None:
    """Write the store and return its manifest (None where another process finishes it)."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = choose_device(cfg.device)
    if world > 1 and device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", world))))
    recipe = make_recipe(cfg)
    harvester = recipe.harvester(device)
    settings = recipe.settings(harvester.layers) | {"dtype": cfg.dtype}
    began = time.monotonic()
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rows]}"),
        TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=rank > 0,
    ) as bar:  # fmt: skip
        task = bar.add_task("examples", total=None, rows="")

        def show(now: Standing) -> None:
            rate = now.rows / max(time.monotonic() - began, 1e-9)
            skipped = f", {now.skipped} skipped" if now.skipped else ""
            bar.update(
                task, completed=now.examples, total=now.of, rows=f"{now.rows:,} rows, {rate:,.0f}/s{skipped}"
            )

        job = HarvestJob(
            harvester, Store(cfg.output), settings, dtype=cfg.dtype, shard_mb=cfg.shard_mb, max_skipped=cfg.max_skipped,
            rank=rank, world=world, tell=say if rank == 0 else lambda text: None, show=show,
        )  # fmt: skip
        manifest = job.run()
    if manifest is not None:
        report(cfg.output, manifest, time.monotonic() - began)
    return manifest


def make_recipe(cfg: DictConfig) -> HarvestRecipe:
    return HarvestRecipe(**{key: plain(cfg[key]) for key in RECIPE_KEYS})


def list_layers(cfg: DictConfig) -> None:
    """Print every module that the network calls, with the shape of what it returns for one example."""
    recipe = make_recipe(cfg)
    recipe.layers = "**"
    table = Table(
        "layer", "module", "output for one example", title=f"{recipe.loaded.description['architecture']}"
    )
    candidates, failure = recipe.harvester(choose_device(cfg.device)).candidates()
    for found in candidates:
        for call, shape in enumerate(found.shapes):
            shown = "no tensor" if shape is None else " x ".join(map(str, shape))
            table.add_row(found.name + (f"@{call}" if call else ""), found.module, shown)
    Console(width=None if console.is_terminal else 160).print(table)
    if failure is not None:
        say(f"the pass ended here ({failure}); the layers above can be harvested all the same")


def report(output: str, manifest: dict[str, Any], seconds: float) -> None:
    table = Table("layer", "rows", "features", "mean row norm", "filtered", "MB")
    for layer, found in manifest["layers"].items():
        size = sum(shard["bytes"] for shard in found["shards"]) / 2**20
        table.add_row(
            layer, f"{found['rows']:,}", f"{found['features']:,}", f"{found['mean_row_norm']:.4g}", f"{found['filtered']:,}",
            f"{size:,.1f}",
        )  # fmt: skip
    console.print(table)
    if manifest["skipped"]:
        say(f"{manifest['skipped']} examples could not be read; manifest.json lists them")
    say(f"store {output} ({seconds:.1f} s)")
    choice = f" data.layer={next(iter(manifest['layers']))}" if len(manifest["layers"]) > 1 else ""
    say(f"next  python scripts/train.py data=shards data.path={output}{choice} l1_penalty=0.1")
    say(f"      python scripts/show_rows.py store={output} rows=[0,1,2]")


def say(text: str) -> None:
    console.print(text, soft_wrap=True, markup=False, highlight=False)
