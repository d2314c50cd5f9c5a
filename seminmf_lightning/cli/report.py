"""See what was learned:  python scripts/report.py run=<run>

Writes one HTML file that opens offline: figures, and each concept with its strongest examples at both poles.
Every key is in configs/report.yaml.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import DictConfig
from rich.progress import track
from torch import Tensor

from seminmf_lightning import SemiNMFModule
from seminmf_lightning.cli.build import build_data, choose_device, data_of_run, quieten, register_schemas
from seminmf_lightning.core.checks import real_number, whole_number
from seminmf_lightning.data import ActivationDataModule
from seminmf_lightning.dictionary_file import load_dictionary
from seminmf_lightning.explain import Report, make_report, origins_of, require_libraries
from seminmf_lightning.explain.page import ENCODED_ROWS
from seminmf_lightning.io.schema import conform, is_finite
from seminmf_lightning.io.untrusted import parse_json
from seminmf_lightning.training.data_port import real_rows

register_schemas()


@hydra.main(version_base="1.3", config_path="pkg://seminmf_lightning.configs", config_name="report")
def main(cfg: DictConfig) -> None:
    quieten()
    report(cfg)


def report(cfg: DictConfig) -> Path:
    """Write the page and return its path."""
    require_libraries()
    for name, least in (("examples", 1), ("max_concepts", 0), ("batch_rows", 1)):
        whole_number(name, cfg[name], least)
    real_number("max_mb", cfg.max_mb, 0)
    device = choose_device(cfg.device)
    began, run = time.monotonic(), Path(cfg.run)
    module = SemiNMFModule.from_run(run).eval()
    data = build_data(cfg.data if cfg.data is not None else data_of_run(run))
    if not isinstance(data, ActivationDataModule):
        raise ValueError(
            "a report reads rows again: harvest them with scripts/harvest.py and use data=shards data.path=..."
        )
    data.prepare_data()
    features = module.dictionary.shape[1]
    if data.features != features:
        raise ValueError(
            f"{data.source.shards[0].name}: rows of {data.features} features, but {run} has {features}"
        )
    module.to(device)
    origins = origins_of(data.source, int(cfg.max_mb * 2**20))
    gathered = Report.empty(
        module.dictionary.detach().cpu(), len(data.source), cfg.examples, module.recipe.l1_penalty
    )
    starts = range(0, len(data.source), cfg.batch_rows)
    for start in track(starts, "rows", disable=len(starts) < 2):
        stop = min(start + cfg.batch_rows, len(data.source))
        A, numbers = (
            found.to(device)
            for found in data.usable(data.source.read_range(start, stop), torch.arange(start, stop))
        )
        A = real_rows(A)
        Z = module.encode(A)
        groups = torch.from_numpy(np.array(origins.groups(start, stop))).to(device)[numbers - start]
        gathered.update(module.normalizer.apply(A).to(Z), Z, numbers, groups)

    def encode(ranges: Sequence[range]) -> Iterator[Tensor]:
        waiting: list[range] = []
        for number, rows in enumerate(ranges):
            waiting.append(rows)
            if sum(map(len, waiting)) >= ENCODED_ROWS or number + 1 == len(ranges):
                A = data.source.read(
                    np.concatenate([np.arange(one.start, one.stop) for one in waiting])
                ).nan_to_num(0, 0, 0)
                yield from module.encode(A.to(device)).float().cpu().split([len(one) for one in waiting])
                waiting = []

    held_out = (load_dictionary(run).config.get("data") or {}).get("val_fraction")
    run = run if run.is_dir() else run.parent
    path = Path(cfg.output or run / "report.html")
    figures, settings = figures_of(run), module.plain_recipe() | {"data": type(data.source).__name__}
    content = make_report(
        gathered,
        run,
        figures,
        settings,
        origins,
        encode,
        cfg.max_concepts,
        float(module.scale),
        held_out=held_out,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(content, encoding="utf-8")
    os.replace(partial, path)
    if data.skipped_rows:
        print(f"skipped {len(data.skipped_rows):,} rows with NaN or Inf")
    print(f"report  {path} ({path.stat().st_size / 2**20:.1f} MB, {time.monotonic() - began:.1f} s)")
    return path


def figures_of(run: Path) -> dict[str, Any]:
    path = run / "metrics.json"
    if not path.is_file():
        return {}
    figures = parse_json(path, path.read_bytes(), "JSON")
    conform(path, figures, {})
    return {name: value for name, value in figures.items() if value is None or is_finite(value)}
