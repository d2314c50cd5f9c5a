"""Speed and memory of the l1_penalty = 0 path, side by side in one run:  python scripts/benchmark.py

Every measurement runs in a process of its own: two OpenMP runtimes in one stall each other.  Prints a table and writes
``benchmark.csv``.  ``--rows`` and ``--features`` set the size, ``--threads`` the cores.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics as stats
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=384)
    parser.add_argument("--concepts", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("benchmark.csv"))
    parser.add_argument("--measure", choices=list(MEASURES), help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure](options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        results: list[tuple[str, Any]] = []
        for factor in (1, 20):
            path = Path(folder) / f"rows{factor}.npy"
            write_rows(path, options.rows * factor, options.features)
            for name in ["memory"] if factor > 1 else list(MEASURES):
                for figure, value in run(options, name, path).items():
                    results.append((f"{figure} ({options.rows * factor:,} rows)", value))
    with open(options.output, "w", newline="") as file:
        csv.writer(file).writerows([("figure", "value"), *results])
    for figure, value in results:
        print(f"{figure:60s} {value:>16,.4g}")


def write_rows(path: Path, rows: int, features: int) -> None:
    """Signed rows with a decaying spectrum."""
    generator = np.random.default_rng(0)
    mixing = generator.standard_normal((features, features)) / np.arange(1, features + 1)[:, None] ** 0.7
    out = np.lib.format.open_memmap(path, "w+", np.float32, (rows, features))
    for start in range(0, rows, 50_000):
        count = min(50_000, rows - start)
        out[start : start + count] = generator.standard_normal((count, features), dtype=np.float32) @ mixing.astype(np.float32)
    out.flush()


def run(options: argparse.Namespace, name: str, path: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", name, "--path", str(path)]
    command += ["--concepts", str(options.concepts), "--threads", str(options.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def pass_rate(options: argparse.Namespace) -> dict[str, float]:
    """Rows/s of the statistics, data reading included, against the plain product of the same blocks in memory."""
    import torch

    from seminmf_lightning import ActivationDataModule
    from seminmf_lightning.learners import Recipe, make_learner

    torch.set_num_threads(options.threads)
    data = ActivationDataModule(str(options.path), val_fraction=0, order="sequential", batch_size=16_384)
    data.setup()
    learner = make_learner(Recipe(nb_concepts=options.concepts), data.features)
    D = learner.start(data.sample())
    blocks = [A.clone() for A, _ in data.train_dataloader()]
    plain, ours = [], []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for A in blocks:
            _ = A.T @ A
        plain.append(time.perf_counter() - began)
        began = time.perf_counter()
        for A, _ in data.train_dataloader():
            learner.observe(A, D)
            learner.absorb()
        ours.append(time.perf_counter() - began)
    ratio = stats.median(p / o for p, o in zip(plain, ours, strict=True))
    return {"statistics pass, rows/s": len(data.source) / stats.median(ours), "share of the plain A^T A rate": ratio}


def time_to_solution(options: argparse.Namespace) -> dict[str, float]:
    """Seconds of ``SemiNMF(solver="hals").fit`` on rows in memory, and the gap it ends at."""
    import torch

    from seminmf_lightning.estimator import BLOCK_ROWS
    from seminmf_lightning.learners import Recipe, make_learner

    torch.set_num_threads(options.threads)
    A = torch.from_numpy(np.load(options.path))
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        learner = make_learner(Recipe(nb_concepts=options.concepts), A.shape[1])
        D = learner.start(A[:4096])
        for rows in A.split(BLOCK_ROWS):
            learner.observe(rows, D)
            learner.absorb()
        while not learner.converged():
            D = learner.improve(D)
        seconds.append(time.perf_counter() - began)
    gap = learner.optimality_gap(D)
    assert gap is not None
    return {"hals to convergence, seconds": stats.median(seconds), "optimality gap reached": gap}


def memory(options: argparse.Namespace) -> dict[str, float]:
    """Anonymous memory after a pass, MB (Linux)."""
    import torch

    from seminmf_lightning import ActivationDataModule
    from seminmf_lightning.learners import Recipe, make_learner

    torch.set_num_threads(options.threads)
    data = ActivationDataModule(str(options.path))
    data.setup()
    learner = make_learner(Recipe(nb_concepts=options.concepts), data.features)
    D = learner.start(data.sample())
    for A, _ in data.train_dataloader():
        learner.observe(A, D)
        learner.absorb()
    lines = Path("/proc/self/status").read_text().splitlines()
    return {"anonymous memory, MB": int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024}


MEASURES = {"pass": pass_rate, "solution": time_to_solution, "memory": memory}


if __name__ == "__main__":
    main()
