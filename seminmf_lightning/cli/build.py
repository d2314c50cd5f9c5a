"""Build objects from a composed config.  Config objects end here; the rest gets plain types."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, get_args

import torch
from hydra.utils import instantiate
from lightning import Callback, Trainer
from lightning.fabric.plugins.precision.precision import _PRECISION_INPUT_STR
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.strategies import StrategyRegistry
from lightning.pytorch.utilities import rank_zero_warn
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Column, Table

from seminmf_lightning import SemiNMFModule
from seminmf_lightning.cli.launch import is_first_process, local_rank
from seminmf_lightning.core.checks import one_of
from seminmf_lightning.data.build import build_data, settings_from_file
from seminmf_lightning.data.network import differing, network_of
from seminmf_lightning.dictionary_file import load_dictionary
from seminmf_lightning.learners import Recipe
from seminmf_lightning.training.callbacks import RENAMED

ACCELERATORS = ("auto", "gpu", *sorted(AcceleratorRegistry.available_accelerators()))
PRECISIONS = tuple(str(name) for name in get_args(_PRECISION_INPUT_STR))

console = Console()


def say(*lines: str) -> None:
    """Print lines unchanged: not wrapped, no markup."""
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def show_metrics(rows: Iterable[tuple[str, str, str]], title: str) -> None:
    """Print a table of metrics: name, value, meaning."""
    # A narrow terminal folds the meaning, and cuts neither names nor numbers.
    name, value = Column("metric", no_wrap=True), Column("value", no_wrap=True)
    table = Table(name, value, Column("meaning", overflow="fold"), title=title)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def plain(node: Any, resolve: bool = True) -> Any:
    """Return containers, strings and numbers instead of config objects."""
    return OmegaConf.to_container(node, resolve=resolve) if OmegaConf.is_config(node) else node


def build_module(cfg: DictConfig) -> SemiNMFModule:
    """Build the module; the root keys of the same names are its recipe."""
    return SemiNMFModule(**{field.name: plain(cfg[field.name]) for field in fields(Recipe)})


def load_module(cfg: DictConfig) -> SemiNMFModule:
    """Load the dictionary of ``cfg.run``, with its own encoder unless ``cfg.encoder`` names another."""
    return SemiNMFModule.from_run(cfg.run, encoder=plain(cfg.encoder) if cfg.encoder else None)


def choose_data(cfg: DictConfig) -> dict[str, Any]:
    """Return the settings of ``cfg.data``, or else those of ``cfg.run``, and print the latter."""
    if cfg.data is not None:
        return plain(cfg.data)
    settings = data_of_run(cfg.run)
    path = f" data.path={settings['path']}" if settings.get("path") else ""
    if is_first_process():
        say(f"data  data={settings['name']}{path}, the run's own")
    return settings


def data_of_run(run: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the data settings that a run was trained with.

    Raises:
        ValueError: the run has none, or they name anything but a source of rows with plain settings.
    """
    return settings_from_file(run, load_dictionary(run).config.get("data"))


def build_data_for(module: SemiNMFModule, settings: dict[str, Any], run: str) -> Any:
    """Build and prepare a data module; a ValueError if its rows do not fit the dictionary of ``run``."""
    data = build_data(settings)
    data.prepare_data()
    name, features, expected = data.source.shards[0].name, data.source.features, module.dictionary.shape[1]
    if features != expected:
        raise ValueError(f"{name}: rows of {features} features, but {run} has {expected}")
    warn_of_other_network(data, run)
    return data


def warn_of_other_network(data: Any, run: str) -> None:
    """Warn of rows of another layer or network than those that the dictionary of ``run`` was learned from."""
    if names := differing(network_of(data), load_dictionary(run).config.get("network")):
        rank_zero_warn(f"these rows are of {names[0]}, but {run} was learned from {names[1]}")


def build_trainer(cfg: DictConfig, callbacks: list[Callback], loggers: list[Any] | bool) -> Trainer:
    """Build the trainer; processes that share the cores of this machine share them evenly."""
    quieten()
    if not cfg.trainer.get("enable_progress_bar", True):  # Lightning refuses a bar among the callbacks then
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    strategies = ("auto", *StrategyRegistry.available_strategies())
    for key, names in (("accelerator", ACCELERATORS), ("strategy", strategies), ("precision", PRECISIONS)):
        if isinstance(cfg.trainer[key], str):
            one_of(f"trainer.{key}", cfg.trainer[key], names)
    plugins = [instantiate(current(item), _convert_="all") for item in cfg.trainer.get("plugins") or []]
    trainer = instantiate(cfg.trainer, callbacks=callbacks, logger=loggers, plugins=plugins, _convert_="all")
    if trainer.strategy.root_device.type == "cpu" and trainer.num_devices > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // trainer.num_devices))
    return trainer


def refuse_without_validation(trainer: Trainer) -> None:
    """Raise ValueError if metrics could not be measured at the end."""
    every: int | None = trainer.check_val_every_n_epoch
    if every is not None and every < 1:
        raise ValueError(f"trainer.check_val_every_n_epoch must be at least 1, got {every}")
    if trainer.limit_val_batches == 0:
        raise ValueError(
            "trainer.limit_val_batches=0: the metrics of a run are measured in validation; give a share "
            "such as 0.1, or validate rarely with trainer.check_val_every_n_epoch"
        )


def build_each(node: DictConfig | None) -> list[Any]:
    """Build every object of a group of named ones."""
    return [instantiate(current(item), _convert_="all") for item in (node or {}).values()]


def current(node: DictConfig) -> DictConfig:
    """Return a config whose ``_target_`` is one of version 0.1.0 with the new name, and warn."""
    before = node.get("_target_")
    if before not in RENAMED:
        return node
    warnings.warn(
        f"_target_: {before} is now {RENAMED[before]}; the next release knows the new name alone",
        stacklevel=2,
    )
    return OmegaConf.merge(node, {"_target_": RENAMED[before]})  # type: ignore[return-value]


def choose_device(name: str) -> torch.device:
    """Return a device; ``auto`` is a GPU if there is one, under torchrun and srun that of this process."""
    if name != "auto":
        try:
            return torch.device(name)
        except RuntimeError as error:
            raise ValueError(
                f"device must be auto, cpu, cuda or another of torch's, such as cuda:1; got {name!r}"
            ) from error
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank() % torch.cuda.device_count())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def quieten() -> None:
    """Hide warnings about deliberate choices of this project."""
    for message in (
        ".*isinstance.treespec, LeafSpec.*",
        ".*smaller than the logging interval.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*dirpath has changed.*",
        ".*Couldn't infer the batch indices.*",
        ".*sync_dist=True.*",  # torchmetrics has summed over the processes already
    ):
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )
