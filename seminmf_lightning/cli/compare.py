"""Compare the runs of a sweep:  python scripts/compare.py multirun/<date>/<time> [--max-l0 16]

Takes sweeps, single runs and globs of them, as many as wanted.  Prints a line a run, and writes
``compare.csv``, ``compare.json`` and the frontier of r2 against l0, ``compare.html`` (pip install -e
'.[report]').
"""

from __future__ import annotations

import argparse
import csv
import html
import json
import math
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seminmf_lightning.explain.runs import METRICS, Run, find_runs, read_run
from seminmf_lightning.explain.sweeps import best, frontier, stability, varying

STYLES = {"failed": "red", "unfinished": "yellow"}
DROPPED = ("seconds", "dead", "gap", "loss", "stability")
GAP = 3  # between columns
SHORT = {"reconstruction_loss": "loss", "dead_fraction": "dead", "optimality_gap": "gap"}
COSINE = 0.9
POWERS = [2**power for power in range(16)]
FRONTIER = "* on the frontier: no run has a higher r2 with as few nonzeros."
STABILITY = f"stability: share of atoms with a partner of cosine above {COSINE}, mean over pairs of seeds."
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", help="sweep directories, run directories, or globs of them")
    parser.add_argument(
        "--max-l0", type=float, default=math.inf, help="name the best run with at most so many nonzeros a row"
    )
    parser.add_argument(
        "--output", type=Path, help="folder for the three files; default: the folder that holds the runs"
    )
    options = parser.parse_args()
    try:
        runs = [read_run(path) for path in find_runs(options.paths)]
    except FileNotFoundError as error:
        parser.error(str(error))
    shared = Path(os.path.commonpath([run.path.parent for run in runs]))
    output = options.output or shared
    output.mkdir(parents=True, exist_ok=True)
    keys, records, chosen = varying(runs), describe(runs, shared), best(runs, options.max_l0)

    console = Console()
    if not console.is_terminal:
        console.width = 500  # a file or a pipe: no line is folded
    columns, gone = columns_of(records, keys, console.width)
    console.print(as_table(records, columns))
    write_csv(output / "compare.csv", records, keys)
    (output / "compare.json").write_text(json.dumps(records, indent=2) + "\n")
    for line in (
        *remarks(records, columns, gone),
        best_line(runs, chosen, options.max_l0),
        f"wrote {output / 'compare.csv'}, {output / 'compare.json'}",
        plot(output / "compare.html", records),
    ):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def describe(runs: list[Run], shared: Path) -> list[dict[str, Any]]:
    """All that is shown of each run, as plain values."""
    keys, on_frontier, stable = varying(runs), {run.path for run in frontier(runs)}, stability(runs, COSINE)
    return [
        {
            "run": os.path.relpath(run.path, shared),
            "path": str(run.path),
            "status": run.status,
            "reason": run.reason,
            "settings": {key: run.settings.get(key) for key in keys},
            "frontier": run.path in on_frontier,
            "stability": stable[run.path].share if run.path in stable else None,
            "seeds": stable[run.path].seeds if run.path in stable else None,
        }
        | {name: run.metrics.get(name) for name in METRICS}
        for run in runs
    ]


def columns_of(
    records: list[dict[str, Any]], keys: list[str], width: int
) -> tuple[dict[str, list[str]], list[str]]:
    """Cells by column, without the figures that no run has; and the columns for which ``width`` is too
    narrow."""
    stable = [f" ({record['seeds']} seeds)" if record["seeds"] else "" for record in records]
    columns = {"run": [record["run"] + " *" * record["frontier"] for record in records]}
    columns |= {key: [shown(record["settings"][key]) for record in records] for key in keys}
    columns |= {SHORT.get(name, name): [shown(record[name]) for record in records] for name in METRICS}
    columns |= {
        "stability": [
            shown(record["stability"]) + seeds for record, seeds in zip(records, stable, strict=True)
        ]
    }
    columns |= {"status": [record["status"] for record in records]}
    columns = {name: cells for name, cells in columns.items() if name not in DROPPED or set(cells) != {"-"}}
    droppable = [name for name in (*DROPPED, *reversed(keys)) if name in columns]
    gone = []
    while droppable and sum(max(map(len, (name, *cells))) + GAP for name, cells in columns.items()) > width:
        gone.append(droppable.pop(0))
        del columns[gone[-1]]
    return columns, gone


def as_table(records: list[dict[str, Any]], columns: dict[str, list[str]]) -> Table:
    """A line a run."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=True, justify="left" if name in ("run", "status") else "right")
    for record, *cells in zip(records, *columns.values(), strict=True):
        style = STYLES.get(record["status"], "bold" if record["frontier"] else "")
        table.add_row(*(Text(cell, style=style) for cell in cells))
    return table


def remarks(records: list[dict[str, Any]], columns: dict[str, list[str]], gone: list[str]) -> list[str]:
    """What the table does not say: why runs are not finished, what its marks mean, which columns it lacks."""
    found = [
        f"{record['run']}: {record['status']}: {record['reason']}" for record in records if record["reason"]
    ]
    found += [FRONTIER] * any(record["frontier"] for record in records) + [STABILITY] * (
        "stability" in columns
    )
    return found + [f"too narrow for {', '.join(gone)}: in compare.csv"] * bool(gone)


def shown(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def write_csv(path: Path, records: list[dict[str, Any]], keys: list[str]) -> None:
    columns = ["run", *keys, *METRICS, "stability", "seeds", "frontier", "status", "reason", "path"]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(record["settings"] | record for record in records)


def best_line(runs: list[Run], chosen: Run | None, max_l0: float) -> str:
    limit = "" if max_l0 == math.inf else f" with l0 <= {max_l0:g}"
    if chosen is not None:
        return f"best r2{limit}: {chosen.r2:.4g} at l0 {chosen.l0:.4g}  run={chosen.path}"
    fewest = next(iter(frontier(runs)), None)
    return f"no finished run{limit}" + (
        f"; the fewest nonzeros are {fewest.l0:.4g}, in {fewest.path}" if fewest else ""
    )


def plot(path: Path, records: list[dict[str, Any]]) -> str:
    """r2 against l0, the frontier joined, on one page that needs no network; returns what to tell the
    user."""
    finished = sorted(
        (record for record in records if record["status"] == "finished"), key=lambda record: record["l0"]
    )
    if not finished:
        return "no plot: no run is finished"
    if find_spec("plotly") is None:
        return "no plot: it needs pip install -e '.[report]'"
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
            text=[hover(record) for record in points],
            hovertemplate="%{text}<br>l0 %{x:.4g}, r2 %{y:.4g}<extra></extra>",
        )
    figure.update_layout(
        title="r2 against nonzeros a row",
        xaxis={"title": "l0, mean nonzeros a row"} | log_axis(finished),
        yaxis={"title": "r2"},
        template="plotly_white",
        legend={
            "orientation": "h",
            "y": 1.02,
            "yanchor": "bottom",
        },  # above, so that a phone has the width for the plot
    )
    path.write_text(
        PAGE.format(plot=figure.to_html(full_html=False, include_plotlyjs=True)), encoding="utf-8"
    )
    return f"plot  {path}"


def log_axis(finished: list[dict[str, Any]]) -> dict[str, Any]:
    """Of nonzeros, with powers of two where there are some in range."""
    low, high = finished[0]["l0"], finished[-1]["l0"]
    if low <= 0:
        return {}
    return {"type": "log"} | (
        {"tickvals": POWERS} if sum(low <= power <= high for power in POWERS) > 1 else {}
    )


def hover(record: dict[str, Any]) -> str:
    settings = [html.escape(f"{key}={shown(value)}") for key, value in record["settings"].items()]
    return "<br>".join([f"<b>{html.escape(record['run'])}</b>", *settings])
