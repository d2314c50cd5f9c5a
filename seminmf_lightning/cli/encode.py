"""Encode rows with a finished run:  python scripts/encode.py run=<run> data=npy data.path=new.npy

Codes are in normalised units: ``a ~ scale * (z D) + mean`` with D, scale and mean of
``dictionary.safetensors``. Every key is in configs/encode.yaml and the groups beside it.
"""

from __future__ import annotations

import time
from pathlib import Path

import hydra
from lightning.pytorch.callbacks import RichProgressBar
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from seminmf_lightning import SemiNMFModule
from seminmf_lightning.cli.build import build_data_for, build_trainer, plain, register_schemas
from seminmf_lightning.cli.results import refuse_to_overwrite
from seminmf_lightning.training.callbacks.codes_writer import CodesWriter, enough_space

register_schemas()


@hydra.main(version_base="1.3", config_path="pkg://seminmf_lightning.configs", config_name="encode")
def main(cfg: DictConfig) -> None:
    encode(cfg)


def encode(cfg: DictConfig) -> dict[str, float]:
    """Write the codes of all rows of ``data`` and return the figures of the reconstruction."""
    began = time.monotonic()
    module = SemiNMFModule.from_run(cfg.run, encoder=plain(cfg.encoder) if cfg.encoder else None)
    data = build_data_for(module, cfg)
    rows, concepts = len(data.source), len(module.dictionary)
    sparse = module.recipe.encoder.sparse
    output = Path(cfg.output or Path(cfg.run) / ("codes.npz" if sparse else "codes.npy"))
    refuse_to_overwrite(output, cfg.overwrite)
    writer = CodesWriter(output, rows, concepts)
    enough_space(output, 0 if writer.sparse else 4 * rows * concepts)

    trainer = build_trainer(cfg, [writer, RichProgressBar()], loggers=False)
    trainer.predict(module, data, return_predictions=False)

    if trainer.is_global_zero:
        seconds = time.monotonic() - began
        table = Table("figure", "value", title=f"{rows:,} rows, {concepts} concepts")
        for name, value in module.figures.items():
            table.add_row(name, f"{value:.6g}")
        table.add_row("rows_per_second", f"{rows / seconds:,.0f}")
        Console().print(table)
        Console().print(f"codes  {output} ({output.stat().st_size:,} bytes)", soft_wrap=True, highlight=False)
    return module.figures
