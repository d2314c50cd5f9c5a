"""Measure a finished run on rows.

Writes RUN/evaluation.json: scalars, and a list where each concept has a value, null for what is not defined.
against=OTHER_RUN compares the two dictionaries.  suite=NAME writes a table with baselines and standard errors
instead, RUN/suite_NAME.json, and its picture.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from omegaconf import DictConfig
from torch import Tensor

from seminmf_lightning import ActivationDataModule
from seminmf_lightning.cli.build import (
    build_data_for,
    build_trainer,
    choose_data,
    load_module,
    refuse_without_validation,
    say,
    show_metrics,
)
from seminmf_lightning.cli.run_directory import folder_of, make_room, next_commands, shown_path, write_json
from seminmf_lightning.cli.suites import refuse_network, run_suites
from seminmf_lightning.core.checks import one_of
from seminmf_lightning.core.constraints import Constraint
from seminmf_lightning.data.network import differing
from seminmf_lightning.dictionary_file import SavedDictionary, load_dictionary
from seminmf_lightning.metrics import described, evaluation_values, finite_or_none
from seminmf_lightning.training.callbacks.evaluation import Evaluation
from seminmf_lightning.training.callbacks.progress_bar import ProgressBar

EXAMPLES = (
    "run=RUN", "run=RUN data=npy data.path=rows.npy", "run=RUN against=OTHER_RUN split=held_out",
    "run=RUN suite=probes suite.probes.count=10", "run=RUN suite=probes suite.probes.tasks=FOLDER",
    "run=RUN suite=behaviour inputs=text inputs.path=texts.jsonl",
    "run=RUN suite=recovery", "run=SWEEP suite=stability suite.stability.consensus=FOLDER",
)  # fmt: skip
SPLIT_KEYS = ("val_fraction", "val_split", "split_seed")


def main(cfg: DictConfig) -> dict[str, Any]:
    """Write the metrics and return them; with suites, the results of each."""
    if cfg.suite is not None:
        return run_suites(cfg)
    refuse_network(cfg)
    began = time.monotonic()
    one_of("split", cfg.split, ("all", "held_out"))
    module = load_module(cfg)
    output = Path(cfg.output or folder_of(cfg.run) / "evaluation.json")
    make_room(output, cfg.run, cfg.overwrite)
    D = module.dictionary.detach().clone()
    other = None if cfg.against is None else other_dictionary(cfg.against, cfg.run, D)
    free = other is not None and matched_without_sign(module.recipe.constraint, other.constraint)
    settings = choose_data(cfg)
    data = build_data_for(module, settings, cfg.run)

    evaluation = Evaluation(None if other is None else other.D, free)
    trainer = build_trainer(cfg, [evaluation, ProgressBar()], loggers=False)
    if cfg.split == "held_out":
        check_split(settings, load_dictionary(cfg.run).config.get("data") or {})
    else:
        data.val_fraction = 0.0  # all rows are validated
    refuse_without_validation(trainer)
    trainer.validate(module, data, verbose=False)

    metrics = {
        "run": str(cfg.run),
        "against": cfg.against,
        "split": cfg.split,
        "rows": len(data.val_rows) - skipped(data, trainer),
        "concepts": D.shape[0],
        "features": D.shape[1],
    }
    measured = module.metrics | evaluation.metrics
    names = [value.name for value in sorted(evaluation_values(), key=lambda value: value.per_concept)]
    metrics |= {name: finite_or_none(measured[name]) for name in names if name in measured}
    metrics["seconds"] = round(time.monotonic() - began, 3)
    if trainer.is_global_zero:
        write_json(output, metrics)
        show(metrics, output)
    return metrics


def skipped(data: ActivationDataModule, trainer: Trainer) -> int:
    """Rows that were left out, over all processes."""
    if data.skipped_rows is None:
        return 0
    mine = torch.tensor(len(data.skipped_rows), device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(mine, reduce_op="sum"))


def other_dictionary(against: str, run: str, D: Tensor) -> SavedDictionary:
    """Load the dictionary of ``against``; a ValueError if its width is not that of ``run``."""
    other = load_dictionary(against)
    if other.D.shape[1] != D.shape[1]:
        raise ValueError(
            f"against={against} has {other.D.shape[1]} features, but {run} has {D.shape[1]}; "
            "compare runs of one layer"
        )
    if names := differing(other.config.get("network"), load_dictionary(run).config.get("network")):
        rank_zero_warn(f"against={against} was learned from {names[0]}, but {run} from {names[1]}")
    return other


def matched_without_sign(ours: Constraint, theirs: Constraint) -> bool:
    """Return whether atoms of two dictionaries are matched by the absolute cosine; warn if signs differ.

    An atom with codes of both signs stands for a line, and its negative is the same concept wherever atoms of
    either dictionary may be negative.

    >>> from seminmf_lightning.core.constraints import CONSTRAINTS
    >>> matched_without_sign(CONSTRAINTS["codes"], CONSTRAINTS["codes"])
    False
    """
    nonnegative_codes = ours.nonnegative_codes and theirs.nonnegative_codes
    nonnegative_atoms = ours.nonnegative_atoms and theirs.nonnegative_atoms
    free = not nonnegative_codes and not nonnegative_atoms
    if ours != theirs:
        how = "the absolute cosine, because one may be the negative of another" if free else "the cosine"
        rank_zero_warn(
            f"the run has nonnegative={ours.name}, the other dictionary nonnegative={theirs.name}: "
            f"atoms are matched by {how}"
        )
    return free


def check_split(ours: dict[str, Any], trained: dict[str, Any]) -> None:
    """Raise ValueError if no row is held out; warn if training held out other rows."""
    if ours.get("val_fraction") == 0:
        raise ValueError(
            "split=held_out, but data.val_fraction=0 holds out no row; raise it, or use split=all"
        )
    for key in SPLIT_KEYS:
        if key in trained and trained[key] != ours.get(key):
            rank_zero_warn(
                f"data.{key}={ours.get(key)} here, {trained[key]} in the run: "
                "it may have been trained on held-out rows"
            )


def show(metrics: dict[str, Any], output: Path) -> None:
    """Print the table of the scalars."""
    shape = f"{metrics['concepts']} concepts x {metrics['features']} features"
    values = evaluation_values()
    scalars = [value.name for value in values if not value.per_concept and value.name in metrics]
    rows = described({name: metrics[name] for name in scalars}, values)
    show_metrics(rows, f"{metrics['rows']:,} rows ({metrics['split']}), {shape}")
    per_concept = " and ".join(value.name for value in values if value.per_concept)
    say(f"metrics  {output} (with {per_concept} of each concept)")
    say(*next_commands(f"report run={shown_path(metrics['run'])}"))
