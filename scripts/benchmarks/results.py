"""Run measurements in processes of their own, and write what they return as one CSV and as tables."""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

TIMEOUT = 1200
SCRIPT = Path(__file__).parents[1] / "benchmark.py"
OURS = "seminmf_lightning"
Value = float | str


class Plan(NamedTuple):
    """How long each measurement takes."""

    repeats: int = 5
    ours: tuple[float, ...] = (0.5, 1, 1.5, 2, 3, 4, 6, 8, 14)
    spams: tuple[float, ...] = (1, 2, 4, 7, 14)
    sklearn: tuple[float, ...] = (7, 14, 30, 60)
    nonzeros: tuple[int, ...] = (8, 16, 32, 64)
    quality: float = 4.0
    autoencoder: float = 40.0
    runs: tuple[tuple[int, int], ...] = (
        (256, 0), (1024, 0), (4096, 0), (1024, 1), (1024, 2), (1024, 3), (1024, 4)
    )  # fmt: skip
    """Batch sizes and seeds."""
    iterations: int = 300


QUICK = Plan(1, (0.05, 0.1), (1,), (0.2,), (4,), 0.1, 0.2, ((256, 0),), 5)


class Results:
    """Run measurements; print and collect their results, a table after the other."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.plan = options, QUICK if options.quick else Plan()
        self.rows: list[tuple[str, str, str, Value]] = []
        self.title = ""

    def table(self, title: str) -> None:
        """Begin a table."""
        self.title = title
        print(f"\n{title}, {self.options.threads} threads, {self.options.device}")

    def add(self, name: str, values: dict[str, Value]) -> dict[str, float]:
        """Add a line; return its numbers."""
        for metric, value in values.items():
            self.rows.append((self.title, name, metric, value))
            print(f"{name:50s} {metric:50s} {shown(value)}", flush=True)
        return {metric: value for metric, value in values.items() if not isinstance(value, str)}

    def measure(
        self, name: str, function: str, package: str | None = None, **arguments: Any
    ) -> dict[str, float]:
        """Add what a function of ``benchmarks`` measures, if the library that it needs is installed."""
        if package is not None and find_spec(package) is None:
            return self.add(name, {"not measured": f"{package} is not installed"})
        return self.add(name, self.run(function, package=package, **arguments))

    def run(self, function: str, **arguments: Any) -> dict[str, Any]:
        """Call a function of ``benchmarks`` in a new process and return its results."""
        options = self.options
        arguments |= {"threads": options.threads, "device": options.device, "repeats": self.plan.repeats}
        if self.options.quick:
            return measure(function, arguments)
        command = [sys.executable, str(SCRIPT), "--measure", function, json.dumps(arguments, default=str)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        if done.returncode:
            raise RuntimeError(f"{function} failed:\n{done.stderr[-4000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def write(self) -> None:
        """Write every value to ``benchmark.csv``, and a table of each title to ``tables.md``."""
        header = ("table", "measurement", "metric", "value")
        with open(self.options.output / "benchmark.csv", "w", newline="") as file:
            csv.writer(file).writerows([header, *self.rows])
        text = ""
        for title in dict.fromkeys(row[0] for row in self.rows):
            cells = {(name, metric): value for at, name, metric, value in self.rows if at == title}
            metrics = list(dict.fromkeys(metric for _, metric in cells))
            text += f"## {title}\n\n| | {' | '.join(metrics)} |\n|{'---|' * (len(metrics) + 1)}\n"
            for name in dict.fromkeys(name for name, _ in cells):
                text += f"| {name} | {' | '.join(shown(cells.get((name, m), '')) for m in metrics)} |\n"
            text += "\n"
        (self.options.output / "tables.md").write_text(text)
        print(f"written  {self.options.output}")


def shown(value: Value) -> str:
    """Return a number with four digits or more.

    >>> shown(1234567.8), shown(0.123456), shown("not installed")
    ('1,234,568', '0.12346', 'not installed')
    """
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.5g}"


def compare(results: Results, name: str, ours: dict[str, float], peer: dict[str, float]) -> None:
    """For each of the peer's losses add our loss at that time and our time to that loss, as shares."""
    timed = [(float(mark.split()[0]), loss) for mark, loss in ours.items()]
    for mark, loss in peer.items():
        seconds = float(mark.split()[0])
        before = [value for at, value in timed if at <= seconds]
        reached = [at for at, value in timed if value <= loss]
        results.add(f"{name}, after {mark}", {
            "ours at that time over its": min(before) / loss if before else float("nan"),
            "our time to it over its time": min(reached) / seconds if reached else float("nan"),
        })  # fmt: skip


def measure(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what a function of ``benchmarks`` measures, or what is wrong with its output."""
    # before torch, for which it chooses how threads wait
    import seminmf_lightning  # isort: skip  # noqa: F401

    import torch

    from benchmarks.checks import WRONG, WrongOutputError

    torch.set_num_threads(arguments["threads"])
    module, _, function = name.partition(".")
    given = {"signs": "dictionary", "peer": None, "target": None, "package": None} | arguments
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            work = getattr(import_module(f"benchmarks.{module}"), function)
            return work(argparse.Namespace(**given)) or {}
    except WrongOutputError as error:
        return {WRONG: str(error)}
    except Exception as error:  # one library's failure must not cost the numbers of the others
        if given["package"] is None:
            raise
        return {"not measured": f"{type(error).__name__}: {error}"}
