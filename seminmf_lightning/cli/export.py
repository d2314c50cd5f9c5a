"""Write a finished run in the form of another tool.

format=saelens is an autoencoder that SAELens loads, format=neuronpedia the batches that Neuronpedia reads,
format=delphi the latent cache of Delphi.  Codes of both signs become two features per concept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from seminmf_lightning import SemiNMF, SemiNMFModule
from seminmf_lightning.cli.build import build_data_for, choose_data, choose_device, plain, quieten, say
from seminmf_lightning.cli.run_directory import folder_of, refuse_unwritable
from seminmf_lightning.core.checks import whole_number
from seminmf_lightning.core.discovery import build, name_of
from seminmf_lightning.data import ActivationDataModule
from seminmf_lightning.integrations.formats import Content, Format
from seminmf_lightning.io.atomic import whole_folder

EXAMPLES = (
    "run=RUN format=saelens",
    "run=RUN format=neuronpedia format.model_id=gpt2-small format.layer=5 output=dashboards",
    "run=RUN format=delphi data=shards data.path=harvests/gpt2",
)
HELD_OUT_ROWS = 8192


def main(cfg: DictConfig) -> Path:
    """Write the folder and return its path."""
    quieten()
    began = time.monotonic()
    whole_number("batch_rows", cfg.batch_rows, 1)
    form = build(Format, plain(cfg.format))
    output = Path(cfg.output or folder_of(cfg.run) / name_of(form))
    refuse_unwritable(output.parent, "output")
    if any(one.resolve().is_relative_to(output.resolve()) for one in (Path(cfg.run), Path.cwd())):
        raise FileExistsError(f"{output} holds the run, or this folder; choose another with output=...")
    if output.exists() and not cfg.overwrite:
        raise FileExistsError(
            f"{output} exists; choose another folder with output=..., or replace it with overwrite=true"
        )
    data = build_data_for(SemiNMFModule.from_run(cfg.run), choose_data(cfg), cfg.run)
    data.setup("fit")
    content = content_of(SemiNMF.load(cfg.run, choose_device(cfg.device)), data, cfg.batch_rows)
    with whole_folder(output, "make room and run the same command again") as partial:
        lines = form.write(partial, content)
    if data.skipped_rows:
        say(f"skipped {len(data.skipped_rows):,} rows with NaN or Inf")
    say(*lines)
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    say(f"export  {output} ({size / 2**20:.1f} MB, {time.monotonic() - began:.1f} s)")
    return output


def content_of(model: SemiNMF, data: ActivationDataModule, batch_rows: int) -> Content:
    """Return what formats read: the model, samples, and all rows in batches."""

    def blocks() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(data.source), batch_rows):
            stop = min(start + batch_rows, len(data.source))
            A, row_ids = data.usable(data.source.read_range(start, stop), torch.arange(start, stop))
            yield A.to(model.device), row_ids

    sample, held_out = (
        rows.float().to(model.device) for rows in (data.sample(), data.held_out_sample(HELD_OUT_ROWS))
    )

    def read(rows: np.ndarray) -> Tensor:
        return data.source.read(rows).to(model.device)

    return Content(
        model, sample, held_out, data.val_fraction > 0, len(data.source), read, blocks, data.source.harvest()
    )
