"""Train a nonnegative dictionary:  python scripts/train.py solver=pgd l1_penalty=0.1

Every key is in configs/train.yaml and the groups beside it; ``--help`` lists them.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import hydra
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from seminmf_lightning import SemiNMFModule
from seminmf_lightning.cli.build import (
    build_data,
    build_each,
    build_module,
    build_trainer,
    plain,
    register_schemas,
)
from seminmf_lightning.cli.launch import is_first_process, set_run_id
from seminmf_lightning.cli.results import write_json
from seminmf_lightning.cli.run_directory import (
    failure_kept,
    finished_run_kept,
    refuse_other_run,
    refuse_unless_file,
    same_place,
    write_settings,
)
from seminmf_lightning.core.checks import one_of
from seminmf_lightning.data.build import named, refuse_secrets
from seminmf_lightning.dictionary_file import FILE_NAME
from seminmf_lightning.explain.runs import ERROR_FILE
from seminmf_lightning.metrics import MEANINGS, described
from seminmf_lightning.training.callbacks.standard import SaveDictionary
from seminmf_lightning.training.checkpoint_io import newest_whole
from seminmf_lightning.training.preemption import Preempted

set_run_id()
register_schemas()


@hydra.main(version_base="1.3", config_path="pkg://seminmf_lightning.configs", config_name="train")
def main(cfg: DictConfig) -> float | list[float]:
    run_dir = Path(cfg.run_dir)
    cfg.data = named(plain(cfg.data))
    if cfg.ckpt_path == "auto":
        if (figures := run_dir / "metrics.json").is_file():
            print(f"{run_dir} is finished already: {figures}")
            return optimized(json.loads(figures.read_text()), cfg)
        found = newest_whole(run_dir / "checkpoints")
        cfg.ckpt_path = None if found is None else str(found)
    if is_first_process():  # the others come when it may have begun to write
        refuse_other_run(run_dir, cfg.ckpt_path)
        refuse_secrets(cfg.data)
    with finished_run_kept(run_dir), failure_kept(run_dir / ERROR_FILE):
        if is_first_process():
            write_settings(run_dir / ".hydra", cfg)
        if cfg.ckpt_path is not None:
            refuse_unless_file(cfg.ckpt_path)
        try:
            return train(cfg)
        except Preempted:
            if is_first_process():
                print(f"to go on, give the same command again with {same_place()} ckpt_path=auto", flush=True)
            raise


def train(cfg: DictConfig) -> float | list[float]:
    """Train, write the run directory, and return the ``optimized_metric`` on the held-out rows, for
    sweepers."""
    began = time.monotonic()
    run_dir, to_optimize = Path(cfg.run_dir), plain(cfg.optimized_metric)
    for name in to_optimize if isinstance(to_optimize, list) else [to_optimize]:
        one_of("optimized_metric", name, tuple(MEANINGS))
    module, data = build_module(cfg), build_data(cfg.data)
    saver = SaveDictionary(str(run_dir / FILE_NAME), config=plain(cfg))
    trainer = build_trainer(cfg, [*build_each(cfg.callbacks), saver], build_each(cfg.logger) or False)

    trainer.fit(module, data, ckpt_path=cfg.ckpt_path, weights_only=True)
    trainer.validate(module, data, verbose=False, weights_only=True)

    figures: dict[str, Any] = module.figures | {
        "optimality_gap": module.optimality_gap(),
        "rows_seen": module.rows_seen,
        "seconds": round(time.monotonic() - began, 3),
    }
    skipped = getattr(data, "skipped_rows", None)
    if trainer.is_global_zero:
        if skipped is not None:
            figures["rows_skipped"] = len(skipped)
        write_results(run_dir, figures, module, data, trainer)
        if skipped is not None and len(skipped):
            Console().print(skipped.summary(), soft_wrap=True, markup=False, highlight=False)
    return optimized(figures, cfg)


def optimized(figures: dict[str, Any], cfg: DictConfig) -> float | list[float]:
    """What a sweeper is told."""
    names = plain(cfg.optimized_metric)
    return [figures[name] for name in names] if isinstance(names, list) else figures[names]


def write_results(
    run_dir: Path, figures: dict[str, Any], module: SemiNMFModule, data: Any, trainer: Trainer
) -> None:
    """``metrics.json``, the hyperparameters tab, the table, and what to type next."""
    write_json(run_dir / "metrics.json", figures)
    numbers = {f"final/{name}": value for name, value in figures.items() if value is not None}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(dict(module.hparams), numbers)
        logger.finalize("success")

    concepts, features = module.dictionary.shape
    rows = "training rows" if getattr(data, "val_fraction", None) == 0 else "held-out rows"
    table = Table(
        "figure", "value", "meaning", title=f"{concepts} concepts x {features} features, measured on {rows}"
    )
    for row in described(figures):
        table.add_row(*row)
    console = Console()
    console.print(table)
    for line in (
        f"run   {run_dir}",
        f"next  tensorboard --logdir {run_dir}",
        f"      python scripts/encode.py run={run_dir} data=npy data.path=<new rows>.npy",
    ):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
