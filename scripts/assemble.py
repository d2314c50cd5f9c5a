"""From a composed config to objects.  Config objects end here: what is built gets plain types."""

from __future__ import annotations

import seminmf_lightning  # isort: skip  # noqa: F401  # before torch, for which it chooses how threads wait

import inspect
import logging
import os
import warnings
from datetime import datetime
from typing import Any

import torch
from hydra.core.config_store import ConfigStore
from hydra.utils import get_class, instantiate
from lightning import Callback, LightningDataModule, Trainer
from omegaconf import DictConfig, OmegaConf

from seminmf_lightning import ActivationDataModule, SemiNMFModule
from seminmf_lightning.config import EncodeConfig, EvaluateConfig, HarvestConfig, ReportConfig, ShowRowsConfig, TrainConfig
from seminmf_lightning.export import load_dictionary

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


def set_run_id() -> None:
    """One name for a run in all its processes, children of ddp and of torchrun included, before Hydra reads it."""
    launched = _start_of_parent() if "TORCHELASTIC_RUN_ID" in os.environ else None
    now = launched or datetime.now()
    os.environ.setdefault("SEMINMF_RUN_ID", now.strftime("%Y-%m-%d/%H-%M-%S-") + f"{now.microsecond // 1000:03d}")


def _start_of_parent() -> datetime | None:
    """When the torchrun agent started, which all its workers agree on (Linux)."""
    try:
        with open(f"/proc/{os.getppid()}/stat") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        with open("/proc/stat") as file:
            boot = next(int(line.split()[1]) for line in file if line.startswith("btime"))
        return datetime.fromtimestamp(boot + ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, StopIteration, ValueError):
        return None


def plain(node: Any) -> Any:
    """Containers, strings and numbers instead of config objects."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def build_module(cfg: DictConfig) -> SemiNMFModule:
    return SemiNMFModule(**{key: plain(cfg[key]) for key in RECIPE_KEYS})


def build_data(node: DictConfig) -> Any:
    """A data module as it is; of a source, the keys that the data module knows go to it, the others to the source."""
    target = get_class(node._target_)
    if issubclass(target, LightningDataModule):
        return target(**{key: value for key, value in plain(node).items() if key != "_target_"})
    stream_keys = inspect.signature(ActivationDataModule).parameters
    options: dict[str, Any] = plain(node)
    stream = {key: value for key, value in options.items() if key in stream_keys}
    source = instantiate({key: value for key, value in options.items() if key not in stream_keys}, _convert_="all")
    return ActivationDataModule(source, **stream)


def build_data_for(module: SemiNMFModule, cfg: DictConfig) -> Any:
    """The data module of ``cfg.data``, prepared, or a ValueError if its rows do not fit the dictionary of ``cfg.run``."""
    data = build_data(cfg.data)
    data.prepare_data()
    name, found, wanted = data.source.shards[0].name, data.source.features, module.dictionary.shape[1]
    if found != wanted:
        raise ValueError(f"{name}: rows of {found} features, but {cfg.run} has {wanted}")
    return data


def build_trainer(cfg: DictConfig, callbacks: list[Callback], loggers: list[Any] | bool) -> Trainer:
    quieten()
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
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def data_of_run(run: str | os.PathLike[str]) -> DictConfig:
    """The data that a run was trained on, as it was configured.

    Raises:
        ValueError: the run does not say, or names a class that is not ours: nothing else is made from a file.
    """
    node = load_dictionary(run).config.get("data")
    if not isinstance(node, dict) or not str(node.get("_target_")).startswith("seminmf_lightning.data."):
        raise ValueError(f"{run} does not say which data it was trained on: give data=... data.path=...")
    return OmegaConf.create(node)


def quieten() -> None:
    """Hide notes on things that this project decides on purpose."""
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*dirpath has changed.*")
    warnings.filterwarnings("ignore", ".*sync_dist=True.*")  # torchmetrics has summed over the processes already
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda record: "Tip:" not in record.getMessage())
