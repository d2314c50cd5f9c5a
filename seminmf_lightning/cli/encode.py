"""Encode rows with a finished run.

Without data=... the rows are those that the run was trained on.  Codes are in normalised units:
a ~ scale (z D) + mean, with D, scale and mean of dictionary.safetensors.
"""

from __future__ import annotations

import time
from pathlib import Path

from omegaconf import DictConfig

from seminmf_lightning.cli.build import (
    build_data_for,
    build_trainer,
    choose_data,
    load_module,
    say,
    show_metrics,
)
from seminmf_lightning.cli.run_directory import make_room, next_commands, shown_path
from seminmf_lightning.metrics import described
from seminmf_lightning.training.callbacks.codes_writer import CodesWriter, enough_space
from seminmf_lightning.training.callbacks.progress_bar import ProgressBar

EXAMPLES = (
    "run=RUN",
    "run=RUN data=npy data.path=new.npy",
    "run=RUN data=shards data.path=harvests/minilm_pydoc output=codes.npz",
    "run=RUN data=npy data.path=new.npy encoder=omp encoder.nonzeros=8",
)


def main(cfg: DictConfig) -> dict[str, float]:
    """Write the codes of all rows of ``data`` and return the metrics of the reconstruction."""
    began = time.monotonic()
    module = load_module(cfg)
    data = build_data_for(module, choose_data(cfg), cfg.run)
    n_rows, concepts = len(data.source), len(module.dictionary)
    output = Path(
        cfg.output or Path(cfg.run) / ("codes.npz" if module.recipe.encoder.sparse else "codes.npy")
    )
    make_room(output, cfg.run, cfg.overwrite)
    writer = CodesWriter(output, n_rows, concepts)
    enough_space(output, 0 if writer.sparse else 4 * n_rows * concepts)

    trainer = build_trainer(cfg, [writer, ProgressBar()], loggers=False)
    trainer.predict(module, data, return_predictions=False)

    if trainer.is_global_zero:
        speed = {"rows_per_second": int(n_rows / (time.monotonic() - began))}
        show_metrics(described(module.metrics | speed), f"{n_rows:,} rows, {concepts} concepts")
        say(f"codes  {output} ({output.stat().st_size:,} bytes)")
        say(*next_commands(f"evaluate run={shown_path(cfg.run)}"))
    return module.metrics
