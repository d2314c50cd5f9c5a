"""From a composed config to objects.  Config objects end here: what is built gets plain types."""

from __future__ import annotations

import seminmf_lightning  # isort: skip  # noqa: F401  # before torch, for which it chooses how threads wait

import logging
import os
import warnings
from typing import Any

import torch
from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from omegaconf import DictConfig, OmegaConf

from seminmf_lightning import SemiNMFModule
from seminmf_lightning.cli.schemas import (
    EncodeConfig,
    EvaluateConfig,
    HarvestConfig,
    ReportConfig,
    ShowRowsConfig,
    TrainConfig,
)
from seminmf_lightning.data.build import DataModule, settings_from_file
from seminmf_lightning.data.build import build_data as build_from_settings
from seminmf_lightning.dictionary_file import load_dictionary

RECIPE_KEYS = (
    "nb_concepts", "l1_penalty", "target_l0", "solver", "init", "encoder", "statistics", "normalize", "tol", "seed",
)  # fmt: skip


def register_schemas() -> None:
    """Make the typed roots known to Hydra."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="encode_schema", node=EncodeConfig)
    store.store(name="evaluate_schema", node=EvaluateConfig)
    store.store(name="harvest_schema", node=HarvestConfig)
    store.store(name="report_schema", node=ReportConfig)
    store.store(name="show_rows_schema", node=ShowRowsConfig)


def plain(node: Any) -> Any:
    """Containers, strings and numbers instead of config objects."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def build_module(cfg: DictConfig) -> SemiNMFModule:
    return SemiNMFModule(**{key: plain(cfg[key]) for key in RECIPE_KEYS})


def build_data(node: DictConfig) -> DataModule:
    """The data module of the group ``data``."""
    return build_from_settings(plain(node))


def build_data_for(module: SemiNMFModule, cfg: DictConfig) -> Any:
    """The data module of ``cfg.data``, prepared, or a ValueError if its rows do not fit the dictionary of
    ``cfg.run``."""
    data = build_data(cfg.data)
    data.prepare_data()
    name, found, wanted = data.source.shards[0].name, data.source.features, module.dictionary.shape[1]
    if found != wanted:
        raise ValueError(f"{name}: rows of {found} features, but {cfg.run} has {wanted}")
    return data


def build_trainer(cfg: DictConfig, callbacks: list[Callback], loggers: list[Any] | bool) -> Trainer:
    quieten()
    if not cfg.trainer.get(
        "enable_progress_bar", True
    ):  # Lightning takes this and a bar among the callbacks for a mistake
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    trainer = instantiate(cfg.trainer, callbacks=callbacks, logger=loggers, _convert_="all")
    if trainer.strategy.root_device.type == "cpu" and trainer.num_devices > 1:
        # Processes that share cores and each take all of them stall one another.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // trainer.num_devices))
    return trainer


def build_each(node: DictConfig | None) -> list[Any]:
    """Every object of a group of named ones."""
    return [instantiate(item, _convert_="all") for item in (node or {}).values()]


def choose_device(name: str) -> torch.device:
    """``auto`` is a GPU if there is one, under torchrun this process's own."""
    if name != "auto":
        try:
            return torch.device(name)
        except RuntimeError as error:
            raise ValueError(
                f"device must be auto, cpu, cuda or another of torch's, such as cuda:1; got {name!r}"
            ) from error
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def data_of_run(run: str | os.PathLike[str]) -> DictConfig:
    """The data that a run was trained on, as it was configured.

    Raises:
        ValueError: the run does not say, or names something else than a source of rows with plain settings.
    """
    return OmegaConf.create(settings_from_file(run, load_dictionary(run).config.get("data")))


def quieten() -> None:
    """Hide notes on things that this project decides on purpose."""
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*dirpath has changed.*")
    warnings.filterwarnings(
        "ignore", ".*sync_dist=True.*"
    )  # torchmetrics has summed over the processes already
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )
