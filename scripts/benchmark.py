"""Speed, memory and quality, side by side in one run:  python scripts/benchmark.py

Every measurement runs in a process of its own: two OpenMP runtimes in one stall each other.  Prints a table and writes
``benchmark.csv``.  Peers that are not installed are named and left out: pip install -e '.[bench]'.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

TIMEOUT = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="rows (n, d) as .npy; default: synthetic signed rows")
    parser.add_argument("--rows", type=int, default=100_000, help="of the synthetic rows")
    parser.add_argument("--features", type=int, default=384, help="of the synthetic rows")
    parser.add_argument("--concepts", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=Path("benchmark"), help="folder for the CSV")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--target", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--l1-penalty", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options)
        return
    with tempfile.TemporaryDirectory() as folder:
        results = exact(options, Path(folder))
    options.output.mkdir(parents=True, exist_ok=True)
    with open(options.output / "benchmark.csv", "w", newline="") as file:
        csv.writer(file).writerows([("measurement", "figure", "value"), *results])


def exact(options: argparse.Namespace, folder: Path) -> list[Row]:
    """l1_penalty = 0."""
    path, many = options.data or folder / "rows.npy", folder / "many.npy"
    if options.data is None:
        write_rows(path, options.rows, options.features)
    n, d = np.load(path, mmap_mode="r").shape
    write_rows(many, 20 * n, d)
    results = Results()
    print(f"l1_penalty = 0, {n:,} rows of {d}, {options.concepts} concepts, {options.threads} threads")
    results.add("statistics pass", run(options, "exact.pass_rate", path))
    peer = run(options, "peers.overcomplete_mu", path) if installed("overcomplete") else {"loss": 0.0}
    results.add("overcomplete mu on A^T, 300 iterations", peer)
    ours = run(options, "exact.solution", path, target=peer["loss"])
    results.add("hals", ours)
    if "seconds" in peer:
        results.add("hals", {"times faster to that loss": peer["seconds"] / ours["seconds to target"]})
    for rows, file in ((n, path), (20 * n, many)):
        results.add(f"memory, {rows:,} rows", run(options, "exact.memory", file))
    for penalty in (0.0, 0.1):
        rates = [
            run(options, "exact.processes", many if penalty == 0 else path, processes=count, l1_penalty=penalty)["rows/s"]
            for count in (1, 2)
        ]
        results.add(
            f"one process and two, l1_penalty={penalty:g}",
            {"rows/s of one": rates[0], "rows/s of two": rates[1], "ratio": rates[1] / rates[0]},
        )
    return results.rows


Row = tuple[str, str, float]


class Results:
    """Rows of the table, printed as they come."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, measurement: str, figures: dict[str, float]) -> None:
        for figure, value in figures.items():
            self.rows.append((measurement, figure, value))
            print(f"{measurement:45s} {figure:32s} {value:>14,.5g}", flush=True)


def write_rows(path: Path, rows: int, features: int) -> None:
    """Signed rows with a decaying spectrum."""
    generator = np.random.default_rng(0)
    mixing = generator.standard_normal((features, features)) / np.arange(1, features + 1)[:, None] ** 0.7
    out = np.lib.format.open_memmap(path, "w+", np.float32, (rows, features))
    for start in range(0, rows, 50_000):
        count = min(50_000, rows - start)
        out[start : start + count] = generator.standard_normal((count, features), dtype=np.float32) @ mixing.astype(np.float32)
    out.flush()


def installed(package: str) -> bool:
    """Whether a peer can be measured; says so if not."""
    found = find_spec(package) is not None
    if not found:
        print(f"{package} is not installed and left out: pip install -e '.[bench]'")
    return found


def run(options: argparse.Namespace, name: str, path: Path, **extra: float) -> dict[str, float]:
    """Measure in a new process."""
    command = [sys.executable, __file__, "--measure", name, "--path", str(path)]
    command += ["--concepts", str(options.concepts), "--threads", str(options.threads)]
    for key, value in extra.items():
        command += [f"--{key.replace('_', '-')}", str(value)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(options: argparse.Namespace) -> None:
    """The inside of :func:`run`."""
    import torch

    torch.set_num_threads(options.threads)
    module, _, function = options.measure.partition(".")
    figures = getattr(import_module(f"benchmarks.{module}"), function)(options)
    if figures:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
