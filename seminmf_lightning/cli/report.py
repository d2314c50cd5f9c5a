"""Write a page of the concepts of a run.

The page is one HTML file that opens offline: metrics, and each concept with its strongest examples of both
signs.  Labels that are typed in it are exported to labels.json; beside the run, the next report loads them.
"""

from __future__ import annotations

import time
from pathlib import Path

from omegaconf import DictConfig
from torch import Tensor

from seminmf_lightning import SemiNMFModule
from seminmf_lightning.cli.build import choose_data, choose_device, quieten, say, warn_of_other_network
from seminmf_lightning.cli.run_directory import folder_of, make_room, next_commands, shown_path
from seminmf_lightning.core.checks import real_number, whole_number
from seminmf_lightning.core.commands import command
from seminmf_lightning.data import ActivationDataModule
from seminmf_lightning.data.build import build_data
from seminmf_lightning.explain import ReportOptions, make_report, require_libraries
from seminmf_lightning.explain.language_model import require_server
from seminmf_lightning.io.atomic import whole_file
from seminmf_lightning.io.labels import (
    AUTOMATIC_FILE,
    LABELS_FILE,
    labels_or_warning,
    read_labels,
    write_labels,
)

EXAMPLES = (
    "run=RUN",
    "run=RUN max_concepts=100 examples=16 output=page.html",
    "run=RUN labels=labels.json",
    "run=RUN data=shards data.path=harvests/vision_demo",
)


def typed_labels(given: str | None, folder: Path, D: Tensor) -> dict[int, str]:
    """Return the labels in the file ``given``, or in the run's ``labels.json`` if there is one."""
    if given is not None:
        if not Path(given).exists():
            raise FileNotFoundError(
                f"labels={given}: no such file; a report exports labels.json, by its button"
            )
        return read_labels(Path(given), D)
    return labels_or_warning(folder / LABELS_FILE, D) if (folder / LABELS_FILE).is_file() else {}


def main(cfg: DictConfig) -> Path:
    """Write the page and return its path."""
    quieten()
    require_libraries()
    for name, least in (("examples", 1), ("max_concepts", 0), ("batch_rows", 1)):
        whole_number(name, cfg[name], least)
    real_number("max_mb", cfg.max_mb, 0)
    if cfg.base_url is not None:
        require_server(cfg.base_url, cfg.language_model)
    device = choose_device(cfg.device)
    began, run = time.monotonic(), Path(cfg.run)
    path = Path(cfg.output or folder_of(run) / "report.html")
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"output={path}: a report is a page; give a name that ends with .html")
    module = SemiNMFModule.from_run(run).eval()
    labels = typed_labels(cfg.labels, folder_of(run), module.dictionary)
    make_room(path, run, True)
    data = build_data(choose_data(cfg))
    if not isinstance(data, ActivationDataModule):
        raise ValueError(
            f"a report reads rows again, which live data cannot do: store them with `{command('harvest')}`, "
            "then give data=shards data.path=<folder>"
        )
    data.prepare_data()
    warn_of_other_network(data, cfg.run)
    options = ReportOptions(
        cfg.examples, cfg.max_concepts, cfg.max_mb, cfg.batch_rows, cfg.base_url, cfg.language_model
    )
    report = make_report(module.to(device), data, run, options, labels)
    with whole_file(path, f"make room and run `{command('report')}` again") as partial:
        partial.write_text(report.page, encoding="utf-8")
    write_labels(path.with_name(AUTOMATIC_FILE), report.automatic, module.dictionary)
    if data.skipped_rows:
        say(f"skipped {len(data.skipped_rows):,} rows with NaN or Inf")
    say(f"report  {path} ({path.stat().st_size / 2**20:.1f} MB, {time.monotonic() - began:.1f} s)")
    say(*next_commands(f"evaluate run={shown_path(cfg.run)}"))
    return path
