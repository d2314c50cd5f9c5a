"""Every figure of a finished run on given rows:  python scripts/evaluate.py run=<run> data=npy
data.path=rows.npy

Writes ``<run>/evaluation.json``: a list where each concept has a figure, null for what is not defined.
``against=<other run>`` compares the two dictionaries.  Every key is in configs/evaluate.yaml and the groups
beside it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import hydra
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities import rank_zero_warn
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch import Tensor

from seminmf_lightning import ActivationDataModule, SemiNMFModule
from seminmf_lightning.cli.build import build_data_for, build_trainer, data_of_run, plain, register_schemas
from seminmf_lightning.cli.results import refuse_to_overwrite, write_json
from seminmf_lightning.core.checks import one_of
from seminmf_lightning.dictionary_file import load_dictionary
from seminmf_lightning.metrics import described, evaluation_values, finite_or_none
from seminmf_lightning.training.callbacks.evaluation import Evaluation

SPLIT_KEYS = ("val_fraction", "val_split", "split_seed")

register_schemas()


@hydra.main(version_base="1.3", config_path="pkg://seminmf_lightning.configs", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    evaluate(cfg)


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Write the figures and return them."""
    began = time.monotonic()
    one_of("split", cfg.split, ("all", "held_out"))
    module = SemiNMFModule.from_run(cfg.run, encoder=plain(cfg.encoder) if cfg.encoder else None)
    run = Path(cfg.run)
    output = Path(cfg.output or (run if run.is_dir() else run.parent) / "evaluation.json")
    refuse_to_overwrite(output, cfg.overwrite)
    D = module.dictionary.detach().clone()
    other = None if cfg.against is None else other_dictionary(cfg.against, cfg.run, D)
    if cfg.data is None:
        cfg.data = data_of_run(cfg.run)
    data = build_data_for(module, cfg)

    evaluation = Evaluation(other)
    trainer = build_trainer(cfg, [evaluation, RichProgressBar()], loggers=False)
    if cfg.split == "held_out":
        check_split(plain(cfg.data), load_dictionary(cfg.run).config.get("data") or {})
    else:
        data.val_fraction = 0.0  # what is validated is then all rows
    trainer.validate(module, data, verbose=False)

    figures = {
        "run": str(cfg.run),
        "against": cfg.against,
        "split": cfg.split,
        "rows": len(data.val_rows) - skipped(data, trainer),
        "concepts": D.shape[0],
        "features": D.shape[1],
    }
    measured = module.figures | evaluation.figures
    names = [value.name for value in sorted(evaluation_values(), key=lambda value: value.per_concept)]
    figures |= {name: finite_or_none(measured[name]) for name in names if name in measured}
    figures["seconds"] = round(time.monotonic() - began, 3)
    if trainer.is_global_zero:
        write_json(output, figures)
        show(figures, output)
    return figures


def skipped(data: ActivationDataModule, trainer: Trainer) -> int:
    """Rows that were left out, of all processes."""
    if data.skipped_rows is None:
        return 0
    mine = torch.tensor(len(data.skipped_rows), device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(mine, reduce_op="sum"))


def other_dictionary(against: str, run: str, D: Tensor) -> Tensor:
    """The dictionary of ``against``, or a ValueError if it is of another width than that of ``run``."""
    other = load_dictionary(against).D
    if other.shape[1] != D.shape[1]:
        raise ValueError(
            f"against={against} has {other.shape[1]} features, but {run} has {D.shape[1]}; compare runs of one layer"
        )
    return other


def check_split(ours: dict[str, Any], trained: dict[str, Any]) -> None:
    """Raise ValueError if no row is held out, warn if other rows are than while training."""
    if ours.get("val_fraction") == 0:
        raise ValueError(
            "split=held_out, but data.val_fraction=0 holds out no row; raise it, or use split=all"
        )
    for key in SPLIT_KEYS:
        if key in trained and trained[key] != ours.get(key):
            rank_zero_warn(
                f"data.{key}={ours.get(key)} here, {trained[key]} in the run: held-out rows may be ones that it was trained on"
            )


def show(figures: dict[str, Any], output: Path) -> None:
    """The table of the scalars."""
    title = f"{figures['rows']:,} rows ({figures['split']}), {figures['concepts']} concepts x {figures['features']} features"
    table = Table("figure", "value", "meaning", title=title)
    scalars = [value.name for value in evaluation_values() if not value.per_concept and value.name in figures]
    for row in described({name: figures[name] for name in scalars}, evaluation_values()):
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(
        f"figures  {output} (with {' and '.join(v.name for v in evaluation_values() if v.per_concept)} of each concept)",
        soft_wrap=True,
        highlight=False,
    )

