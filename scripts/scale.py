"""What a dictionary of any size costs:  python scripts/scale.py [--features 16384 --concepts 131072 --rows 1e11 --gpus 256]

Prints the tables of docs/scale.md.  ``--measure`` trains small dictionaries in several processes instead and compares the
bytes they exchange with the same formulas (Linux, as root: a network of its own holds no traffic of others).

Legend:  d features   k concepts   m rows between two updates, all GPUs together   G GPUs   s nonzeros a row
         C = A^T A (d, d)   D (k, d)   S = Z^T Z (k, k)   P = Z^T A (k, d)
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

FLOAT32, FLOAT64 = 4, 8
UNITS = (("years", 365.25 * 86_400), ("days", 86_400.0), ("hours", 3600.0), ("min", 60.0))


@dataclass(frozen=True)
class Machine:
    """Many equal GPUs; the figures of one H100 (SXM) and its share of InfiniBand."""

    gpus: int = 256
    memory: float = 80e9
    flops: float = 50e12
    """Sustained, float32 without tensor cores or float64 with them; both have 67e12 on paper."""
    network: float = 50e9
    """Bytes a second that one GPU sends, and as many that it receives."""


@dataclass(frozen=True)
class Problem:
    features: int = 16_384
    concepts: int = 131_072
    rows: float = 1e11
    nonzeros: int = 64
    iterations: int = 12
    """ADMM iterations a row in training; the encoder settles on 2 to 128."""


@dataclass(frozen=True)
class Cost:
    """Of one method: a pass has ``updates``; each GPU sends and computes so much for one, and holds so much."""

    updates: float
    sent: float  # bytes
    flops: float
    memory: float  # bytes

    def seconds(self, machine: Machine) -> tuple[float, float]:
        """On the network and at work, of one update, if neither waited for the other."""
        return self.sent / machine.network, self.flops / machine.flops


def ring(message: float, gpus: int) -> float:
    """Bytes that each of G processes sends in an all-reduce of ``message`` bytes: a reduce-scatter and an all-gather."""
    return 2 * gathered(message, gpus)


def gathered(message: float, gpus: int) -> float:
    """The same of an all-gather, or a reduce-scatter, of a tensor of ``message`` bytes in all."""
    return (gpus - 1) / gpus * message


def second_moment_message(d: int) -> float:
    """C and the number of rows."""
    return FLOAT64 * (d * d + 1)


def codes_message(k: int, d: int) -> float:
    """S, P, how often each atom fired, and four numbers."""
    return FLOAT64 * (k * k + k * d + k + 4)


def second_moment_updates(batches: int) -> int:
    """Reductions of a pass: one every sixteenth of it."""
    return ceil(batches / max(1, batches // 16))


def codes_updates(rows: int, batch: int, update_rows: int = 512) -> int:
    """Reductions of a pass: one every 512 rows, at least one a batch of 512 rows or more."""
    if batch <= update_rows:
        return ceil(ceil(rows / batch) / max(1, update_rows // batch))
    whole, rest = divmod(rows, batch)
    return whole * ceil(batch / update_rows) + ceil(rest / update_rows)


def second_moment(problem: Problem, machine: Machine) -> Cost:
    """l1_penalty = 0, as the code does it: C is on every GPU, rows are shared out, 2,048 at least to each."""
    d, G = problem.features, machine.gpus
    updates = second_moment_updates(ceil(problem.rows / (2048 * G)))
    return Cost(
        updates=updates,
        sent=ring(second_moment_message(d), G),
        flops=2 * d * d * problem.rows / G / updates,
        memory=4 * FLOAT64 * d * d,  # of the sample, of all rows, of those since the last update; and what is being sent
    )


def second_moment_step(k: int, d: int) -> float:
    """Operations of one solver step on C, the same on every GPU: Q R of D, P, S, and a sweep of HALS."""
    return 4 * k * k * d + 2 * k * d * d + 4 * k * k * d + 2 * k**3 + 2 * k * k * d


def encoding(problem: Problem) -> float:
    """Operations of one row without S: correlations, ADMM, error, its part of P."""
    k, d = problem.concepts, problem.features
    return (2 + 2 + 2) * k * d + (problem.iterations + 1) * 2 * k * min(k, 2 * d)


def factoring(k: int, d: int) -> float:
    """Operations of the factor that ADMM caches, for one dictionary: of D^T D where k > d, multiplied out up to k = 2 d."""
    if k <= d:
        return 2 * k * k * d + k**3
    return 4 * k * d * d + d**3 / 3 + (4 * k * k * d if k <= 2 * d else 0)


def factor_bytes(k: int, d: int) -> float:
    """What is cached: D D^T and a (k, k) matrix, or where these would be larger than D one (d, k) matrix."""
    return (FLOAT64 + FLOAT32) * k * k if k <= 2 * d else FLOAT32 * k * d


def codes(problem: Problem, machine: Machine, update_rows: int = 512) -> Cost:
    """l1_penalty > 0, as the code does it: everything but the rows is on every GPU; one sweep of HALS an update."""
    k, d, G = problem.concepts, problem.features, machine.gpus
    return Cost(
        updates=problem.rows / update_rows,
        sent=ring(codes_message(k, d), G),
        flops=update_rows / G * (encoding(problem) + 2 * k * k) + factoring(k, d) + 2 * k * k * d,
        memory=3 * codes_message(k, d)  # of all rows, of those since the last update, and what is being sent
        + 2 * FLOAT32 * k * d  # D, and what DDP sets aside for its gradient, which never comes
        + factor_bytes(k, d),
    )


def sharded(problem: Problem, machine: Machine, update_rows: int, steps: int = 4) -> Cost:
    """l1_penalty > 0 with the atoms shared out: each GPU owns k / G rows of D, S and P.  Not in the code.

    To send for an update: D (gathered for the codes) and the second matrix of its factor; the d x d matrix inside that; sparse
    codes, a value and a number each; P, reduced to its owners; D again for each of the ``steps`` of projected gradient.
    """
    k, d, G, m = problem.concepts, problem.features, machine.gpus, update_rows
    sparse = (FLOAT32 + FLOAT32) * m * problem.nonzeros
    whole = FLOAT32 * k * d
    own = (k * k + k * d) / G
    return Cost(
        updates=problem.rows / m,
        sent=gathered((2 + steps) * whole + sparse + FLOAT64 * k * d, G) + ring(FLOAT64 * d * d, G),
        flops=m / G * (encoding(problem) + 2 * problem.nonzeros**2)
        + 4 * k * d * d / G + d**3 / 3
        + (steps + 1) * 2 * k * k * d / G,
        memory=2 * whole + FLOAT64 * k * d + 2 * FLOAT64 * d * d  # gathered; P of the own rows; inside the factor
        + (2 * FLOAT64 + FLOAT32) * own + 4 * FLOAT32 * m / G * k,  # own part of S and P; the codes and three states of ADMM
    )  # fmt: skip


def largest_concepts(problem: Problem, machine: Machine) -> int:
    """The largest k whose sums fit on one GPU whole."""
    low, high = 1, 10**7
    while high - low > 1:
        k = (low + high) // 2
        fits = codes(replace(problem, concepts=k), machine).memory <= machine.memory
        low, high = (k, high) if fits else (low, k)
    return low


def balanced_rows(problem: Problem, machine: Machine) -> int:
    """Rows an update from which the sharded method computes for longer than it sends, to a row a GPU."""
    fewest, most = (sharded(problem, machine, m).seconds(machine) for m in (machine.gpus, 2 * machine.gpus))
    ahead = fewest[0] - fewest[1]  # of the network; both are linear in m
    gain = (most[1] - fewest[1]) - (most[0] - fewest[0])
    return machine.gpus * (1 + max(0, ceil(ahead / gain)))


def report(problem: Problem, machine: Machine, update_rows: int) -> str:
    """The tables of docs/scale.md."""
    tables = compared(problem, machine, update_rows), by_concepts(problem, machine, update_rows), bounds(problem, machine)
    return "\n\n".join(tables)


def compared(problem: Problem, machine: Machine, update_rows: int) -> str:
    """The three methods side by side."""
    methods = (
        (second_moment(problem, machine), problem.rows / second_moment(problem, machine).updates),
        (codes(problem, machine), 512.0),
        (sharded(problem, machine, update_rows), float(update_rows)),
    )
    rows: dict[str, list[str]] = {
        "rows between updates": [f"{rows:,.0f}" for _, rows in methods],
        "updates a pass": [f"{cost.updates:,.0f}" for cost, _ in methods],
        "a GPU sends, an update": [f"{cost.sent / 1e9:.3g} GB" for cost, _ in methods],
        "network, an update": [_duration(cost.seconds(machine)[0]) for cost, _ in methods],
        "arithmetic, an update": [_duration(cost.seconds(machine)[1]) for cost, _ in methods],
        "network, a pass": [_duration(cost.updates * cost.seconds(machine)[0]) for cost, _ in methods],
        "arithmetic, a pass": [_duration(cost.updates * cost.seconds(machine)[1]) for cost, _ in methods],
        "memory of a GPU": [f"{cost.memory / 1e9:.3g} GB" for cost, _ in methods],
        f"fits in {machine.memory / 1e9:.0f} GB": ["yes" if cost.memory <= machine.memory else "no" for cost, _ in methods],
    }
    return _table(("", "second moment", "codes", "codes, sharded by atoms"), [(name, *cells) for name, cells in rows.items()])


def by_concepts(problem: Problem, machine: Machine, update_rows: int) -> str:
    """How the codes' method grows with k."""
    rows = []
    for k in (4_096, 16_384, 32_768, 65_536, 131_072):
        one = replace(problem, concepts=k)
        today, shared = codes(one, machine), sharded(one, machine, update_rows)
        rows.append((
            f"{k:,}", f"{codes_message(k, one.features) / 1e9:.3g} GB", f"{today.memory / 1e9:.3g} GB",
            _duration(today.seconds(machine)[0]), f"{shared.memory / 1e9:.3g} GB", _duration(shared.seconds(machine)[0]),
        ))  # fmt: skip
    header = ("k", "S and P", "memory of a GPU", "network, an update", "sharded: memory", "sharded: network")
    return _table(header, rows)


def bounds(problem: Problem, machine: Machine) -> str:
    """Where one method ends and the next begins."""
    d, step = problem.features, second_moment_step(problem.features // 2, problem.features)
    reading = problem.rows * d * 2 / machine.gpus
    arithmetic = second_moment(problem, machine)
    seconds = arithmetic.updates * arithmetic.seconds(machine)[1]
    return _table(
        ("", ""),
        [
            ("largest k whose sums fit on one GPU whole", f"{largest_concepts(problem, machine):,}"),
            ("sharded: rows an update from which arithmetic takes longer", f"{balanced_rows(problem, machine):,}"),
            (f"a solver step on C, k = {d // 2:,}, on every GPU", _duration(step / machine.flops)),
            ("rows in float16, all and of one GPU", f"{problem.rows * d * 2 / 1e15:.3g} PB, {reading / 1e12:.3g} TB"),
            ("reading that keeps up with the pass for C, of one GPU", f"{reading / seconds / 1e9:.3g} GB/s"),
        ],
    )


def _duration(seconds: float) -> str:
    name, unit = next(((name, unit) for name, unit in UNITS if seconds >= 2 * unit), ("s", 1.0))
    return f"{seconds / unit:.3g} {name}" if seconds / unit < 1000 else f"{seconds / unit:,.0f} {name}"


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def measure(processes: int, penalty: float) -> dict[str, float]:
    """Train for a pass in so many processes under torchrun; reductions, their bytes, and bytes on the loopback interface.

    Bytes on the wire are 0 where this user may not make a network of its own.
    """
    here = Path(__file__).parent
    command = [
        sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--master-addr=127.0.0.1",
        str(here / "traffic.py"), f"--penalty={penalty}",
    ]  # fmt: skip
    own_network = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    alone = shutil.which("unshare") is not None and subprocess.run([*own_network, "true"], capture_output=True).returncode == 0
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(own_network * alone + command, capture_output=True, text=True, env=environment, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return found | {"wire": found["wire"] * alone}


def expected(processes: int, penalty: float, *, rows: int, batch: int, features: int, concepts: int) -> dict[str, float]:
    """What :func:`measure` should find."""
    if penalty:
        messages, message = codes_updates(rows, batch), codes_message(concepts, features)
    else:
        messages, message = second_moment_updates(ceil(rows / batch)), second_moment_message(features)
    return {"messages": messages, "payload": messages * message, "wire": messages * processes * ring(message, processes)}


def measured() -> str:
    """Formulas beside measurements."""
    rows = []
    for processes in (2, 3):
        for penalty in (0.0, 0.1):
            found = measure(processes, penalty)
            settings = {name: int(found[name]) for name in ("rows", "batch", "features", "concepts")}
            wanted = expected(processes, penalty, **settings)
            rows.append((
                f"{processes}", f"{penalty:g}", f"{wanted['messages']:,} / {found['messages']:,}",
                f"{wanted['payload'] / 1e6:.3f} / {found['payload'] / 1e6:.3f} MB",
                f"{wanted['wire'] / 1e6:.2f} / {found['wire'] / 1e6:.2f} MB", f"{found['wire'] / wanted['wire'] - 1:+.2%}",
            ))  # fmt: skip
    return _table(("processes", "l1_penalty", "messages", "payload", "bytes on the wire", "difference"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=Problem.features, help="d")
    parser.add_argument("--concepts", type=int, default=Problem.concepts, help="k")
    parser.add_argument("--rows", type=float, default=Problem.rows, help="n")
    parser.add_argument("--gpus", type=int, default=Machine.gpus)
    parser.add_argument("--update-rows", type=int, help="between updates of the sharded method; default: 512 a GPU")
    parser.add_argument("--measure", action="store_true", help="train small dictionaries and count bytes")
    options = parser.parse_args()
    if options.measure:
        print(measured())
        return
    problem = Problem(features=options.features, concepts=options.concepts, rows=options.rows)
    machine = Machine(gpus=options.gpus)
    print(report(problem, machine, options.update_rows or 512 * machine.gpus))


if __name__ == "__main__":
    main()
