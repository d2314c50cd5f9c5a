"""Compare the runs of a sweep.

Takes sweeps, single runs and globs of them.  Prints one line per run, and writes compare.csv, compare.json
and the frontier of r2 against l0, compare.html (needs the extra: pip install 'seminmf-lightning[report]').
"""

from __future__ import annotations

import argparse
import csv
import html
import math
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from seminmf_lightning.cli.run_directory import next_commands, shown_path, write_json
from seminmf_lightning.core.commands import command
from seminmf_lightning.explain.runs import METRICS, Run, find_runs, read_run
from seminmf_lightning.explain.sweeps import best, frontier, stability, varying

EXAMPLES = (
    "multirun/2026-01-31/12-00-00-000",
    "multirun/2026-01-31/12-00-00-000 --max-l0 16",
    "outputs multirun --output compared",
)
STYLES = {"failed": "red", "unfinished": "yellow"}
HIDDEN_FIRST = ("seconds", "dead", "gap", "loss", "stability")
"""Columns hidden first on a narrow terminal, and always if no run has a value."""
SHORT = {"reconstruction_loss": "loss", "dead_fraction": "dead", "optimality_gap": "gap"}
STABILITY = {"stability": "above_null", "matched_cosine": "cosine", "null_cosine": "null_cosine",
             "matched_share": "share", "seeds": "seeds"}  # fmt: skip
"""Column of compare.csv: what it shows of a :class:`~seminmf_lightning.core.stability.Stability`."""
POWERS = [2**power for power in range(16)]
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>r2 against l0</title>
</head>
<body>
{plot}
</body>
</html>
"""


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        command("compare"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n" + "\n".join(f"  {command('compare')} {example}" for example in EXAMPLES),
    )  # fmt: skip
    parser.add_argument("paths", nargs="+", help="sweep directories, run directories, or globs of them")
    help_l0 = "name the best run with at most this many nonzeros per row"
    parser.add_argument("--max-l0", type=float, default=math.inf, help=help_l0)
    parser.add_argument(
        "--output", type=Path, help="folder for the three files; default: the folder that holds the runs"
    )
    options = parser.parse_args(arguments)
    runs = [read_run(path) for path in find_runs(options.paths)]
    shared = Path(os.path.commonpath([run.path.parent for run in runs]))
    output = options.output or shared
    output.mkdir(parents=True, exist_ok=True)
    keys, records, chosen = varying(runs), describe(runs, shared), best(runs, options.max_l0)

    console = Console()
    if not console.is_terminal:
        console.width = 500  # a file or a pipe: no line is folded
    table, hidden = table_of(records, keys, console)
    console.print(table)
    write_csv(output / "compare.csv", records, keys)
    write_json(output / "compare.json", records)
    for line in (
        *remarks(records, hidden),
        best_line(runs, chosen, options.max_l0),
        f"wrote {output / 'compare.csv'}, {output / 'compare.json'}",
        plot(output / "compare.html", records),
        *(next_commands(f"report run={shown_path(chosen.path)}") if chosen else ()),
    ):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def describe(runs: list[Run], shared: Path) -> list[dict[str, Any]]:
    """Return what is shown of each run, as plain values."""
    keys, on_frontier, stable = varying(runs), {run.path for run in frontier(runs)}, stability(runs)
    return [
        {
            "run": os.path.relpath(run.path, shared),
            "path": str(run.path),
            "status": run.status,
            "reason": run.reason,
            "settings": {key: run.settings.get(key) for key in keys},
            "frontier": run.path in on_frontier,
        }
        | {name: getattr(stable.get(run.path), value, None) for name, value in STABILITY.items()}
        | {name: run.metrics.get(name) for name in METRICS}
        for run in runs
    ]


def table_of(records: list[dict[str, Any]], keys: list[str], console: Console) -> tuple[Table, list[str]]:
    """Return the table, one line per run, and the columns hidden on a narrow terminal."""
    columns = {"run": [record["run"] + " *" * record["frontier"] for record in records]}
    columns |= {key: [shown(record["settings"][key]) for record in records] for key in keys}
    columns |= {SHORT.get(name, name): [shown(record[name]) for record in records] for name in METRICS}
    seeds = [f" ({record['seeds']} seeds)" if record["seeds"] else "" for record in records]
    columns["stability"] = [shown(r["stability"]) + text for r, text in zip(records, seeds, strict=True)]
    columns["status"] = [record["status"] for record in records]
    columns = {
        name: cells for name, cells in columns.items() if name not in HIDDEN_FIRST or set(cells) != {"-"}
    }
    can_hide = [name for name in (*HIDDEN_FIRST, *reversed(keys)) if name in columns]
    hidden: list[str] = []
    while True:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for name in columns:
            justify = "left" if name in ("run", "status") else "right"
            table.add_column(name, no_wrap=True, justify=justify)  # type: ignore[arg-type]
        for record, *cells in zip(records, *columns.values(), strict=True):
            style = STYLES.get(record["status"], "bold" if record["frontier"] else "")
            table.add_row(*(Text(cell, style=style) for cell in cells))
        wide = console.options.update(width=10_000)
        if not can_hide or Measurement.get(console, wide, table).maximum <= console.width:
            return table, hidden
        hidden.append(can_hide.pop(0))
        del columns[hidden[-1]]


def remarks(records: list[dict[str, Any]], hidden: list[str]) -> list[str]:
    """Return the lines below the table: reasons of failures, meaning of marks, hidden columns."""
    lines = [
        f"{record['run']}: {record['status']}: {record['reason']}" for record in records if record["reason"]
    ]
    if any(record["frontier"] for record in records):
        lines.append("* on the frontier: no run has a higher r2 with as few nonzeros.")
    if any(record["stability"] is not None for record in records):
        lines.append(
            "stability: mean cosine of matched atoms over pairs of seeds, mean atom removed, minus that of "
            "atoms with shuffled entries (compare.csv has both)."
        )
    if hidden:
        lines.append(f"columns hidden to fit the terminal: {', '.join(hidden)} (all are in compare.csv)")
    return lines


def shown(value: Any) -> str:
    """Format a value for people."""
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def write_csv(path: Path, records: list[dict[str, Any]], keys: list[str]) -> None:
    """Write one line per run, with the settings that vary."""
    columns = ["run", *keys, *METRICS, *STABILITY, "frontier", "status", "reason", "path"]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(record["settings"] | record for record in records)


def best_line(runs: list[Run], chosen: Run | None, max_l0: float) -> str:
    """Name the best run, or the sparsest one if none is within ``max_l0``."""
    limit = "" if max_l0 == math.inf else f" with l0 <= {max_l0:g}"
    if chosen is not None:
        return f"best r2{limit}: {chosen.r2:.4g} at l0 {chosen.l0:.4g}  run={chosen.path}"
    sparsest = next(iter(frontier(runs)), None)
    text = f"; the fewest nonzeros are {sparsest.l0:.4g}, in {sparsest.path}" if sparsest else ""
    return f"no finished run{limit}{text}"


def plot(path: Path, records: list[dict[str, Any]]) -> str:
    """Plot r2 against l0 with the frontier joined, on a page that opens offline; return a line to print."""
    finished = [record for record in records if record["status"] == "finished"]
    finished.sort(key=lambda record: record["l0"])
    if not finished:
        return "no plot: no run is finished"
    if find_spec("plotly") is None:
        return "no plot: it needs pip install 'seminmf-lightning[report]'"
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, mode, colour, on_frontier in (
        ("other runs", "markers", "#8a8f98", False),
        ("frontier", "lines+markers", "#1f5fbf", True),
    ):
        points = [record for record in finished if record["frontier"] == on_frontier]
        figure.add_scatter(
            name=name,
            mode=mode,
            marker={"color": colour, "size": 9},
            line={"shape": "hv"},  # a run reaches its r2 with any larger number of nonzeros
            x=[record["l0"] for record in points],
            y=[record["r2"] for record in points],
            text=[hover_text(record) for record in points],
            hovertemplate="%{text}<br>l0 %{x:.4g}, r2 %{y:.4g}<extra></extra>",
        )
    figure.update_layout(
        title="r2 against nonzeros per row",
        xaxis={"title": "l0, mean nonzeros per row"} | log_axis(finished),
        yaxis={"title": "r2"},
        template="plotly_white",
        # The legend is above the plot, which gets the whole width of a phone.
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )
    content = PAGE.format(plot=figure.to_html(full_html=False, include_plotlyjs=True))
    path.write_text(content, encoding="utf-8")
    return f"plot  {path}"


def log_axis(finished: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a logarithmic axis of nonzeros, with ticks at powers of two if at least two are in range."""
    low, high = finished[0]["l0"], finished[-1]["l0"]
    if low <= 0:
        return {}
    ticks = {"tickvals": POWERS} if sum(low <= power <= high for power in POWERS) > 1 else {}
    return {"type": "log"} | ticks


def hover_text(record: dict[str, Any]) -> str:
    """Return the name and settings of a run, escaped for HTML."""
    settings = [html.escape(f"{key}={shown(value)}") for key, value in record["settings"].items()]
    return "<br>".join([f"<b>{html.escape(record['run'])}</b>", *settings])
