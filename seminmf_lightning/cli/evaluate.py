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
from seminmf_lightning.core.similarity import collinearity, hungarian_distance, matched_share
from seminmf_lightning.dictionary_file import load_dictionary
from seminmf_lightning.metrics import defined
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
    of_dictionary = dictionary_figures(
        D, None if cfg.against is None else other_dictionary(cfg.against, cfg.run, D)
    )
    if cfg.data is None:
        cfg.data = data_of_run(cfg.run)
    data = build_data_for(module, cfg)

    evaluation = Evaluation()
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
    measured = module.figures | evaluation.figures | of_dictionary
    figures |= {name: defined(measured[name]) for name in MEANINGS if name in measured}
    figures |= {name: measured[name] for name in EACH_CONCEPT} | {
        "seconds": round(time.monotonic() - began, 3)
    }
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


def dictionary_figures(D: Tensor, other: Tensor | None) -> dict[str, float]:
    """Of the dictionary alone, and beside another."""
    largest, mean = collinearity(D)
    figures = {"collinearity_max": largest, "collinearity_mean": mean}
    if other is not None:
        figures |= {
            "hungarian_distance": hungarian_distance(D, other),
            "matched_share": matched_share(D, other),
        }
    return figures


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
    for name, meaning in MEANINGS.items():
        if name in figures:
            table.add_row(name, "-" if figures[name] is None else f"{figures[name]:.6g}", meaning)
    console = Console()
    console.print(table)
    console.print(
        f"figures  {output} (with {' and '.join(EACH_CONCEPT)} of each concept)",
        soft_wrap=True,
        highlight=False,
    )


MEANINGS = {
    "reconstruction_loss": "mean squared error, data units",
    "objective": "loss as minimised, normalised",
    "r2": "share of variance explained",
    "relative_l2": "||A - A_hat|| / ||A||, data units",
    "l0": "mean nonzero codes a row",
    "hoyer": "sparsity of a row's codes, 0 to 1",
    "dead_fraction": "concepts no row uses",
    "code_correlation_max": "largest |correlation| of two codes",
    "code_correlation_mean": "mean |correlation| of two codes",
    "optimality_gap": "loss / lower bound - 1, these rows",
    "collinearity_max": "largest cosine of two atoms",
    "collinearity_mean": "mean cosine of two atoms",
    "hungarian_distance": "mean 1 - cosine of matched atoms",
    "matched_share": "matched atoms with cosine >= 0.9",
}
EACH_CONCEPT = ("density", "energy")
