"""Run evaluation suites on a finished run, and write, print and draw their results."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from seminmf_lightning.cli.build import choose_device, console, plain, quieten, say
from seminmf_lightning.cli.launch import is_first_process
from seminmf_lightning.cli.run_directory import folder_of, make_room, write_json
from seminmf_lightning.core.discovery import build
from seminmf_lightning.io.atomic import whole_file
from seminmf_lightning.suites import Context, Estimate, Result, Suite
from seminmf_lightning.suites.picture import draw

NOT_READ = {
    "against": "suite.probes.against=[RUN2] is", "encoder": "the suites try every encoder; it is not",
}  # fmt: skip


def run_suites(cfg: DictConfig) -> dict[str, Any]:
    """Write ``suite_<name>.json`` and ``.svg`` of each suite; return what the files hold, by name."""
    for key, instead in NOT_READ.items():
        if cfg[key] is not None:
            raise ValueError(f"{key}= is not read with suite=; {instead} read there")
    if cfg.split != "all":
        raise ValueError(f"split={cfg.split} is not read with suite=, which chooses its own rows")
    refuse_network(cfg)
    quieten()
    if not is_first_process():  # suites run in one process
        return {}
    settings = plain(cfg.suite)
    suites = {name: build(Suite, {"name": name} | (settings[name] or {})) for name in settings}
    folder, results = Path(cfg.output or folder_of(cfg.run)), {}
    for name, suite in suites.items():
        began = time.monotonic()
        files = [folder / f"suite_{name}{suffix}" for suffix in (".json", ".svg")]
        for file in files:
            make_room(file, cfg.run, cfg.overwrite)
        result = _run(name, suite, cfg)
        head = {"suite": name, "run": str(cfg.run), "settings": settings[name]}
        seconds = round(time.monotonic() - began, 3)
        results[name] = head | result.plain() | {"seconds": seconds}
        write_json(files[0], results[name])
        with whole_file(files[1], "make room and run the same command again") as partial:
            partial.write_text(draw(result), encoding="utf-8")
        show(result)
        say(f"suite    {files[0]} ({seconds:.0f} s)", f"picture  {files[1]}")
    return results


def _run(name: str, suite: Suite, cfg: DictConfig) -> Result:
    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(name, total=None)

        def progress(what: str, done: int, total: int) -> None:
            bar.update(task, description=f"{name}: {what}", completed=done, total=total)

        device = choose_device("cpu" if cfg.trainer.accelerator == "cpu" else "auto")
        given = {key: None if cfg[key] is None else plain(cfg[key]) for key in ("data", "model", "inputs")}
        return suite.run(Context(Path(cfg.run), **given, device=device, show=progress))


def refuse_network(cfg: DictConfig) -> None:
    """Raise ValueError for ``model=`` or ``inputs=`` without the suite that reads them."""
    for key in ("model", "inputs"):
        if cfg[key] is not None and "behaviour" not in (cfg.suite or {}):
            raise ValueError(f"{key}= is read by suite=behaviour alone; add it, or leave out {key}=")


def show(result: Result) -> None:
    """Print the table and its notes."""
    table = Table(title=result.title)
    table.add_column("line", min_width=12)
    for heading in result.columns.values():
        table.add_column(heading, justify="right", min_width=6)  # a narrow terminal breaks before the error
    for line in result.lines:
        table.add_row(Text(line.name), *(shown(line.values.get(name)) for name in result.columns))
    Console(width=None if console.is_terminal else 160).print(table)
    say(*result.notes)


def shown(one: Estimate | None) -> str:
    """Return an estimate with its standard error.

    >>> shown(Estimate(0.8312, 0.0071)), shown(Estimate(16.64)), shown(None)
    ('0.831 ±0.007', '16.64', '-')
    """
    if one is None or not math.isfinite(one.value):
        return "-"
    if one.error is None:
        return f"{one.value:.4g}"
    return f"{one.value:.3f} ±{one.error:.3f}"
