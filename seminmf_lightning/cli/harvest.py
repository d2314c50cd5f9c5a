"""Write the activations of a network to disk.

--list prints the layers of the model.  Type the same command again to resume after an interruption; under
torchrun and srun each process writes its part.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from dataclasses import fields
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
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
from rich.table import Column, Table

from seminmf_lightning.cli.build import choose_device, console, plain, quieten, say
from seminmf_lightning.cli.launch import rank_and_world
from seminmf_lightning.cli.run_directory import next_commands, shown_path
from seminmf_lightning.harvest import HarvestJob, HarvestRecipe, Store
from seminmf_lightning.harvest.job import Progress as JobProgress
from seminmf_lightning.harvest.layers import Layer

EXAMPLES = (
    "experiment=minilm_pydoc",
    "model=transformers model.path=./gpt2 inputs=text inputs.path=texts.jsonl 'layers=[h.5]'",
    "model=timm model.name=resnet50 inputs=images inputs.path=photos --list",
)


def main(cfg: DictConfig) -> None:
    quieten()
    try:
        if cfg.list:
            list_layers(cfg)
        else:
            harvest(cfg)
    except KeyboardInterrupt:
        say(f"stopped; the shards in {cfg.output} are whole, and the same command resumes after them")
        sys.exit(130)


def harvest(cfg: DictConfig) -> dict[str, Any] | None:
    """Write the store and return its manifest (None where another process finishes it)."""
    rank, world = rank_and_world()
    device = choose_device(cfg.device)
    if world > 1 and device.type == "cpu":
        per_node = os.environ.get("SLURM_NTASKS_PER_NODE", world)
        on_this_machine = int(os.environ.get("LOCAL_WORLD_SIZE", per_node))
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // on_this_machine))
    recipe = make_recipe(cfg)
    harvester = recipe.harvester(device)
    settings = recipe.settings(harvester.layers) | {"dtype": cfg.dtype}
    began = time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rows]}"),
    )
    with Progress(
        *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, disable=rank > 0
    ) as bar:
        task = bar.add_task("examples", total=None, rows="")

        def show(now: JobProgress) -> None:
            rate = now.rows / max(time.monotonic() - began, 1e-9)
            skipped = f", {now.skipped} skipped" if now.skipped else ""
            rows = f"{now.rows:,} rows, {rate:,.0f}/s{skipped}"
            bar.update(task, completed=now.examples, total=now.of, rows=rows)

        job = HarvestJob(
            harvester, Store(cfg.output), settings, dtype=cfg.dtype, shard_mb=cfg.shard_mb,
            max_skipped=cfg.max_skipped, rank=rank, world=world,
            tell=say if rank == 0 else lambda text: None, show=show,
        )  # fmt: skip
        manifest = job.run()
    if manifest is not None:
        report(cfg.output, manifest, time.monotonic() - began)
    return manifest


def make_recipe(cfg: DictConfig) -> HarvestRecipe:
    """Build the recipe from the root keys of the same names."""
    return HarvestRecipe(**{field.name: plain(cfg[field.name]) for field in fields(HarvestRecipe)})


def list_layers(cfg: DictConfig) -> None:
    """Print every module that the network calls, with the shape of its output for one example.

    Its input is listed where no module returns that tensor: after a gate, or a sum with the residual stream.
    """
    recipe = make_recipe(cfg)
    recipe.layers = "**"
    architecture = f"{recipe.loaded.description['architecture']}"
    table = Table(
        name_column(), "module", "output for one example", "other input (layer:input)", title=architecture
    )
    candidates, failure = recipe.harvester(choose_device(cfg.device)).candidates()
    for layer in candidates:
        for call, shapes in enumerate(zip(layer.outputs, layer.inputs, strict=True)):
            output, given = (shape and " x ".join(map(str, shape)) for shape in shapes)
            table.add_row(str(Layer(layer.name, call)), layer.module, output or "no tensor", given or "")
    Console(width=None if console.is_terminal else 160).print(table)
    if failure is not None:
        say(f"the forward pass ended here ({failure}); the layers above can be harvested all the same")
    if candidates and HydraConfig.initialized():
        typed = [
            word for word in HydraConfig.get().overrides.task if not word.startswith(("list=", "layers="))
        ]
        # Of its calls the last, which is the nearest to the head.
        last = Layer(candidates[-1].name, len(candidates[-1].outputs) - 1)
        say(*next_commands(f"harvest {shlex.join([*typed, f'layers=[{last}]'])}"))


def name_column() -> Column:
    """Return a column whose names are never cut off: they are what one types."""
    return Column("layer", overflow="fold")


def report(output: str, manifest: dict[str, Any], seconds: float) -> None:
    """Print a table of the layers, and what to type next."""
    table = Table(name_column(), "rows", "features", "mean row norm", "filtered", "MB")
    for name, layer in manifest["layers"].items():
        size = sum(shard["bytes"] for shard in layer["shards"]) / 2**20
        counts = f"{layer['rows']:,}", f"{layer['features']:,}", f"{layer['mean_row_norm']:.4g}"
        table.add_row(name, *counts, f"{layer['filtered']:,}", f"{size:,.1f}")
    console.print(table)
    if manifest["skipped"]:
        say(f"{manifest['skipped']} examples could not be read; manifest.json lists them")
    say(f"store {output} ({seconds:.1f} s)")
    store, (first, *others) = shown_path(output), manifest["layers"]
    layer = f"layer={shlex.quote(first)}" if others else ""
    n_rows = manifest["layers"][first]["rows"]
    fewer = "" if n_rows > 100 else f" nb_concepts={max(1, n_rows // 4)}"  # than the default
    rows = ",".join(str(row) for row in range(min(3, n_rows)))
    show = f"show-rows store={store} {layer}".rstrip() + f" 'rows=[{rows}]'"
    train = f"train data=shards data.path={store}" + f" data.{layer}" * bool(layer) + fewer
    say(*next_commands(show, f"{train} l1_penalty=0.1"))
