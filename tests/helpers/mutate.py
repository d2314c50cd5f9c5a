"""Mutation testing: change one operator, number or return value, and see whether the tests notice.

    python tests/helpers/mutate.py core learners --sample 40 --seed 0 --timeout 60

Each mutant is a copy of the package with one change in one file, on which the tests that mirror the file run
(``tests/<room>/test_<file>.py``, else all of ``tests/<room>``, and what tests the whole room).
Prints the mutants that survive; exit status 1 if there are any.  The working tree is never changed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("core", "solvers", "encoders", "learners")
SWAPS: dict[type, type] = {
    ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or,
    ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
}  # fmt: skip


class Mutant(NamedTuple):
    """One change of one file."""

    file: Path
    line: int
    change: str
    source: str


def mutants(file: Path) -> Iterator[Mutant]:
    """Yield every mutant of a file: operators swapped, ``not`` dropped, numbers plus one, returns of None."""
    tree = ast.parse(file.read_text())
    for number, node in enumerate(ast.walk(tree)):
        for change, replace in _changes(node):
            mutated = copy.deepcopy(tree)
            replace(next(other for index, other in enumerate(ast.walk(mutated)) if index == number))
            yield Mutant(file, getattr(node, "lineno", 0), change, ast.unparse(mutated))


def _changes(node: ast.AST):
    """Yield a description and a function that changes an equal node in place."""

    def setting(field: str, value: object):
        return lambda other: setattr(other, field, value)

    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        new = SWAPS[type(node.ops[0])]
        yield f"{ast.unparse(node)}: {new.__name__}", setting("ops", [new(), *node.ops[1:]])
    elif isinstance(node, ast.BoolOp | ast.BinOp | ast.AugAssign) and type(node.op) in SWAPS:
        new = SWAPS[type(node.op)]
        yield f"{ast.unparse(node)}: {new.__name__}", setting("op", new())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield f"{ast.unparse(node)}: not dropped", setting("op", ast.UAdd())
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        value = not node.value if isinstance(node.value, bool) else node.value + 1
        yield f"{node.value} -> {value}", setting("value", value)
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield f"{ast.unparse(node)}: None", setting("value", ast.Constant(None))


def tests_of(file: Path) -> list[Path]:
    """Return the test file that mirrors ``file``, else those of its room, and what tests the whole room."""
    room = file.parent.name
    own = ROOT / "tests" / room / f"test_{file.stem}.py"
    whole = [ROOT / "tests" / folder / f"test_{room}.py" for folder in (room, "contracts")]
    chosen = [own] if own.exists() else [ROOT / "tests" / room]
    if room == "core" and not own.exists():  # its users are its test
        chosen += [ROOT / "tests" / "learners", ROOT / "tests" / "contracts" / "test_metrics.py"]
    return [path for path in (*chosen, *whole) if path.exists()]


def killed(mutant: Mutant, copy_of_tree: Path, timeout: float) -> bool:
    """Whether the tests fail with the mutant in place in a copy of the tree.

    Raises:
        TimeoutExpired: they did not end in time; an endless loop, or a busy machine.
    """
    target = copy_of_tree / mutant.file.relative_to(ROOT)
    original = target.read_text()
    tests = [copy_of_tree / path.relative_to(ROOT) for path in tests_of(mutant.file)]
    environment = os.environ | {"PYTHONPATH": str(copy_of_tree), "PYTHONDONTWRITEBYTECODE": "1"}
    target.write_text(mutant.source)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *map(str, tests)],
            cwd=copy_of_tree, capture_output=True, timeout=timeout, env=environment, check=False,
        )  # fmt: skip
        return done.returncode != 0
    finally:
        target.write_text(original)


def survivors(
    rooms: Sequence[str], sample: int | None, seed: int, timeout: float, minutes: float
) -> tuple[list[Mutant], int]:
    """Return the mutants of a random sample that survive, and how many got a verdict in time."""
    paths = [ROOT / "seminmf_lightning" / room for room in rooms]
    files = [file for path in paths for file in (sorted(path.glob("*.py")) if path.is_dir() else [path])]
    candidates = [mutant for file in files for mutant in mutants(file)]
    random.Random(seed).shuffle(candidates)
    end, alive, tried = time.monotonic() + 60 * minutes, [], 0
    with tempfile.TemporaryDirectory() as folder:
        for part in ("seminmf_lightning", "tests", "configs", "scripts"):
            shutil.copytree(ROOT / part, Path(folder, part), ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        for mutant in candidates[:sample]:
            if time.monotonic() > end:
                break
            where = f"{mutant.file.relative_to(ROOT)}:{mutant.line}: {mutant.change}"
            try:
                dead = killed(mutant, Path(folder), timeout)
            except subprocess.TimeoutExpired:
                print(f"no verdict within {timeout:g} s: {where}", flush=True)
                continue
            tried += 1
            if not dead:
                alive.append(mutant)
                print(f"survived: {where}", flush=True)
    print(f"{tried - len(alive)} of {tried} mutants killed; there are {len(candidates)}")
    return alive, tried


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rooms", nargs="*", default=ROOMS, help="folders of the package, or files in them")
    parser.add_argument("--sample", type=int, help="only so many mutants, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--timeout", type=float, default=120, help="seconds per mutant; more gives no verdict"
    )
    parser.add_argument("--minutes", type=float, default=15, help="start no further mutant after this time")
    options = parser.parse_args()
    alive, _ = survivors(options.rooms, options.sample, options.seed, options.timeout, options.minutes)
    return int(bool(alive))


if __name__ == "__main__":
    sys.exit(main())
