"""Train a dictionary of concepts.

Writes a run directory: checkpoints, dictionary.safetensors, metrics.json, TensorBoard logs, the settings in
.hydra/.  metrics.json is measured on the held-out rows, or on the training rows when data.val_fraction=0.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig

from seminmf_lightning import ActivationDataModule, SemiNMFModule
from seminmf_lightning.cli.build import (
    build_each,
    build_module,
    build_trainer,
    plain,
    refuse_without_validation,
    say,
    show_metrics,
)
from seminmf_lightning.cli.launch import is_first_process, set_run_id
from seminmf_lightning.cli.run_directory import (
    failure_kept,
    finished_run_kept,
    next_commands,
    no_trace,
    refuse_other_run,
    refuse_unless_file,
    same_directory,
    shown_path,
    sweeping,
    write_json,
    write_settings,
)
from seminmf_lightning.core.checks import one_of
from seminmf_lightning.data.build import DataModule, absolute, build_data, named
from seminmf_lightning.data.secrets import refuse_secrets
from seminmf_lightning.dictionary_file import FILE_NAME
from seminmf_lightning.explain.runs import ERROR_FILE, METRICS_FILE
from seminmf_lightning.metrics import MEANINGS, RUN_VALUES, Value, described
from seminmf_lightning.training.callbacks.save_dictionary import SaveDictionary
from seminmf_lightning.training.checkpoints import newest_whole
from seminmf_lightning.training.preemption import Preempted

EXAMPLES = (
    "solver=pgd l1_penalty=0.1",
    "data=npy data.path=acts.npy nb_concepts=256",
    "-m solver=pgd,hals l1_penalty=0,0.05,0.1",
    "trainer=ddp trainer.devices=2 trainer.accelerator=cpu",
)

TUNED = Value("l1_penalty", "penalty tuned to target_l0")

set_run_id()  # before Hydra names the directory


def main(cfg: DictConfig) -> float | list[float]:
    run_dir = Path(cfg.run_dir)
    cfg.data = named(plain(cfg.data, resolve=False))  # data.seed=${seed} is no setting of its own
    if cfg.ckpt_path == "auto":
        if (metrics := run_dir / METRICS_FILE).is_file():
            print(f"{run_dir} is finished already: {metrics}")
            return optimized(json.loads(metrics.read_text()), cfg)
        checkpoint = newest_whole(run_dir / "checkpoints")
        cfg.ckpt_path = None if checkpoint is None else str(checkpoint)
    if is_first_process():  # the others arrive when it may have begun to write
        refuse_other_run(run_dir, cfg.ckpt_path)
        refuse_secrets(plain(cfg.data))
    with finished_run_kept(run_dir):
        with failure_kept(run_dir / ERROR_FILE) if sweeping() else no_trace(run_dir):
            if is_first_process():
                write_settings(run_dir / ".hydra", cfg)
            if cfg.ckpt_path is not None:
                refuse_unless_file(cfg.ckpt_path)
            prepared = prepare(cfg)
        try:
            with failure_kept(run_dir / ERROR_FILE):
                return fit(cfg, *prepared)
        except Preempted:
            if is_first_process():
                print(f"to resume, type the same command with {same_directory()} ckpt_path=auto", flush=True)
            raise


def train(cfg: DictConfig) -> float | list[float]:
    """Train, write the run directory, and return ``optimized_metric`` for sweepers."""
    return fit(cfg, *prepare(cfg))


def prepare(cfg: DictConfig) -> tuple[SemiNMFModule, DataModule, Trainer]:
    """Build everything, which checks every setting, before any data is read."""
    to_optimize = plain(cfg.optimized_metric)
    for name in to_optimize if isinstance(to_optimize, list) else [to_optimize]:
        one_of("optimized_metric", name, tuple(MEANINGS))
    module, data = build_module(cfg), build_data(plain(cfg.data))
    config = plain(cfg) | {"data": absolute(plain(cfg.data))}
    saver = SaveDictionary(str(Path(cfg.run_dir) / FILE_NAME), config=config)
    trainer = build_trainer(cfg, [*build_each(cfg.callbacks), saver], build_each(cfg.logger) or False)
    return module, data, trainer


def fit(cfg: DictConfig, module: SemiNMFModule, data: DataModule, trainer: Trainer) -> float | list[float]:
    """Train, write the run directory, and return ``optimized_metric`` for sweepers."""
    began, run_dir = time.monotonic(), Path(cfg.run_dir)
    refuse_without_validation(trainer)
    trainer.fit(module, data, ckpt_path=cfg.ckpt_path, weights_only=True)
    trainer.validate(module, data, verbose=False, weights_only=True)

    metrics: dict[str, Any] = module.metrics | {
        "optimality_gap": module.optimality_gap(),
        "rows_seen": module.rows_seen,
        "seconds": round(time.monotonic() - began, 3),
    }
    if module.recipe.target_l0 is not None:
        metrics["l1_penalty"] = module.learner.penalty
    skipped = data.skipped_rows if isinstance(data, ActivationDataModule) else None
    if trainer.is_global_zero:
        if skipped is not None:
            metrics["rows_skipped"] = len(skipped)
        write_results(run_dir, metrics, module, data, trainer)
        if skipped is not None and len(skipped):
            say(skipped.summary())
        say(*next_steps(cfg, module, data, trainer))
    return optimized(metrics, cfg)


def optimized(metrics: dict[str, Any], cfg: DictConfig) -> float | list[float]:
    """Return the values that a sweeper optimises."""
    names = plain(cfg.optimized_metric)
    return [metrics[name] for name in names] if isinstance(names, list) else metrics[names]


def write_results(
    run_dir: Path, metrics: dict[str, Any], module: SemiNMFModule, data: DataModule, trainer: Trainer
) -> None:
    """Write ``metrics.json`` and the hyperparameters tab, and print the table."""
    write_json(run_dir / METRICS_FILE, metrics)
    numbers = {f"final/{name}": value for name, value in metrics.items() if value is not None}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(module.plain_recipe(), numbers)
        logger.finalize("success")
    concepts, features = module.dictionary.shape
    rows = "training rows" if data.val_fraction == 0 else "held-out rows"
    rows_of_table = described(metrics, (*RUN_VALUES, TUNED))
    show_metrics(
        rows_of_table,
        f"{concepts} concepts x {features} features, {module.recipe.constraint}\nmeasured on {rows}",
    )


def next_steps(cfg: DictConfig, module: SemiNMFModule, data: DataModule, trainer: Trainer) -> list[str]:
    """Return the last lines on the screen: where the run is, and what to type next."""
    run = shown_path(cfg.run_dir)
    lines = [f"run   {run}"]
    if any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers):
        lines.append(f"logs  tensorboard --logdir {run}")
    if sweeping():
        return lines
    if module.recipe.codes_are_linear and module.recipe.constraint.sign_is_free:
        lines.append(
            "note  with no sign and no penalty these are the principal components, which no dictionary beats"
        )
    elif module.recipe.codes_are_linear:
        lines.append(
            "note  codes are dense, which leaves concepts undetermined; l1_penalty=0.1 makes them readable"
        )
    if not isinstance(data, ActivationDataModule):  # rows that are not kept cannot be read again
        return lines + next_commands(f"compare {run}")
    return lines + next_commands(f"report run={run}")
