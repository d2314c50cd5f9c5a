"""From a composed config to objects.  Config objects end here: what is built gets plain types."""

from __future__ import annotations

import seminmf_lightning  # isort: skip  # noqa: F401  # before torch, for which it chooses how threads wait

import inspect
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from hydra.core.config_store import ConfigStore
from hydra.utils import get_class, instantiate
from lightning import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from omegaconf import DictConfig, OmegaConf

from seminmf_lightning import ActivationDataModule, SemiNMFModule, data
from seminmf_lightning.cli.schemas import (
    EncodeConfig,
    EvaluateConfig,
    HarvestConfig,
    ReportConfig,
    ShowRowsConfig,
    TrainConfig,
)
from seminmf_lightning.data import Source
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


def build_data(node: DictConfig) -> Any:
    """A data module as it is; of a source, the keys that the data module knows go to it, the others to the
    source."""
    target = get_class(node._target_)
    if issubclass(target, LightningDataModule):
        return target(**{key: value for key, value in plain(node).items() if key != "_target_"})
    stream_keys = inspect.signature(ActivationDataModule).parameters
    options: dict[str, Any] = plain(node)
    stream = {key: value for key, value in options.items() if key in stream_keys}
    source = instantiate(
        {key: value for key, value in options.items() if key not in stream_keys}, _convert_="all"
    )
    return ActivationDataModule(source, **stream)


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
        ValueError: the run does not say, or asks for more than one of our sources with plain settings: a file
            from elsewhere must not be able to name, nest or interpolate anything else.
    """
    node = load_dictionary(run).config.get("data")
    if node is None:
        raise ValueError(f"{run} does not say which data it was trained on: give data=... data.path=...")
    target = node.get("_target_")
    if target not in [
        f"{module}.{source.__name__}"
        for source in sources()
        for module in ("seminmf_lightning.data", source.__module__)
    ]:
        raise ValueError(
            f"{run} asks for data from {target!r}, which is no source of seminmf_lightning.data: give data=... data.path=..."
        )
    settings = {key: value for key, value in node.items() if key != "_target_"}
    for value in nested(settings):
        if isinstance(value, str) and ((value.startswith("_") and value.endswith("_")) or "${" in value):
            raise ValueError(
                f"{run} has {value[:80]!r} among the settings of its data, which is not read: give data=... data.path=..."
            )
    return OmegaConf.create(node)


def sources() -> list[type[Source]]:
    """The sources of rows that this package has."""
    return [
        found
        for name in data.__all__
        if isinstance(found := getattr(data, name), type) and issubclass(found, Source)
    ]


def nested(node: Any) -> Iterator[Any]:
    """All keys and values of containers in containers."""
    if isinstance(node, dict):
        yield from node
        node = list(node.values())
    for value in node if isinstance(node, list) else ():
        yield value
        yield from nested(value)


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
