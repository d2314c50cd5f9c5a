"""Malformed files by the thousand:  python tests/helpers/malformed_files.py --files 100000

Whole files of every kind that the project reads are changed at random, in ways that know their structure, and
read.  Of each one of two things must come: what an independent reader finds in the same bytes, or an error
that is a ValueError (or says that the file is not there) and names the file.  Anything else is a failure,
kept with its seed: another error, another result, more than five seconds, more than 512 MB (2 GB for a
picture and its copy), the end of the process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from malformed_kinds import EDITS, Kind, kinds

from seminmf_lightning.harvest.inputs.base import Unreadable
from seminmf_lightning.io.untrusted import Refused

SECONDS = 5.0


ACCEPTED_ERRORS = (Refused, Unreadable, ValueError, FileNotFoundError)
"""By their very type: a UnicodeDecodeError is a ValueError that says nothing of the file."""


def malformed(name: str, kind: Kind, seed: int) -> bytes:
    """File number ``seed``, the same on every machine with the same whole files."""
    chance = random.Random(f"{name} {seed}")
    return EDITS[name](chance.choice(kind.whole), kind.whole, chance)


def verdict(kind: Kind, path: Path, content: bytes) -> str:
    """``loaded right``, ``refused clearly``, or what went wrong."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        path.write_bytes(content)
        found = "loaded right" if kind.read(path, content) else "refused clearly"
    except Exception as error:
        named = path.name in str(error) or (kind.name.startswith("store/") and "/store" in str(error))
        clear = type(error) in ACCEPTED_ERRORS and named and len(str(error)) > len(str(path)) + 10
        found = "refused clearly" if clear else f"{type(error).__name__}: {error}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return found if grown < kind.megabytes else f"took {grown:.0f} MB ({found})"


def work(folder: Path, known: dict[str, Kind], plan: list[tuple[str, int]], verdicts: Path) -> None:
    """The files of ``plan``, one line of JSON in ``verdicts`` each."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries in C have to say
    signal.signal(signal.SIGALRM, _too_long)
    mine = Path(tempfile.mkdtemp(dir=folder))
    for part in ("store", "run"):
        shutil.copytree(folder / part, mine / part)
    with open(verdicts, "a", buffering=1) as stream:
        for name, seed in plan:
            kind = known[name]
            content, path = malformed(name, kind, seed), mine / kind.name
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            try:
                found = verdict(kind, path, content)
            except TooLong as error:
                found = str(error)
            signal.setitimer(signal.ITIMER_REAL, 0)
            stream.write(json.dumps([name, seed, found]) + "\n")
            if kind.name.startswith(("store/", "run/")):
                path.write_bytes(kind.whole[0])


class TooLong(BaseException):
    """No reader may take so long; not an Exception, which a reader may catch."""


def _too_long(*_: object) -> None:
    raise TooLong(f"more than {SECONDS:g} seconds")


def fuzz(
    files: int, seed: int = 0, processes: int = 2, keep: Path | None = None
) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Try ``files`` malformed files; return how many of each kind had each verdict, and the failures in
    words.

    The files of failures are written to ``keep``.
    """
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    counts: Counter[tuple[str, str]] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(dir=place) as root:
        folder = Path(root)
        known = kinds(folder)
        chance = random.Random(seed)
        names = chance.choices(list(known), [kind.share for kind in known.values()], k=files)
        plan = [(name, seed * 10**9 + number) for number, name in enumerate(names)]
        workers = [
            Worker(folder, known, plan[start::processes], folder / f"verdicts.{start}")
            for start in range(processes)
        ]
        while not all([worker.done() for worker in workers]):
            time.sleep(0.05)
        for name, number, found in (line for worker in workers for line in worker.lines()):
            counts[name, found if found in VERDICTS else "FAILED"] += 1
            if found not in VERDICTS:
                failures.append(f"{name} {number}: {found}")
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{name}-{number}{Path(known[name].name).suffix}").write_bytes(
                        malformed(name, known[name], number)
                    )
    return counts, failures


VERDICTS = ("loaded right", "refused clearly")


class Worker:
    """A process that reads files, started anew behind one that ended it or does not come back."""

    def __init__(
        self, folder: Path, known: dict[str, Kind], plan: list[tuple[str, int]], verdicts: Path
    ) -> None:
        self.folder, self.known, self.plan, self.verdicts = folder, known, plan, verdicts
        verdicts.touch()
        self._start()

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.verdicts.read_text().splitlines()]

    def done(self) -> bool:
        size = self.verdicts.stat().st_size
        if size != self.size:
            self.size, self.since = size, time.monotonic()
        stuck = time.monotonic() - self.since > 3 * SECONDS
        if self.process.is_alive() and not stuck:
            return False
        if stuck:
            self.process.kill()
        self.process.join()
        read = len(self.lines())
        if read == len(self.plan):
            return True
        why = "never came back" if stuck else f"ended the process ({self.process.exitcode})"
        with open(self.verdicts, "a") as stream:
            stream.write(json.dumps([*self.plan[read], why]) + "\n")
        self._start()
        return False

    def _start(self) -> None:
        self.size, self.since = -1, time.monotonic()
        left = self.plan[len(self.lines()) :]
        # A forked process has the original files and all imports already.
        context = multiprocessing.get_context("fork")
        self.process = context.Process(target=work, args=(self.folder, self.known, left, self.verdicts))
        self.process.start()


def table(counts: Counter[tuple[str, str]]) -> str:
    """Verdicts by kind."""
    columns = (*VERDICTS, "FAILED")
    lines = [f"{'kind':<12}{'files':>9}" + "".join(f"{column:>17}" for column in columns)]
    for name in [*EDITS, "all"]:
        row = [
            sum(count for (kind, found), count in counts.items() if name in (kind, "all") and found == column)
            for column in columns
        ]
        lines.append(f"{name:<12}{sum(row):>9,}" + "".join(f"{count:>17,}" for count in row))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, help="folder for the files of failures")
    options = parser.parse_args()
    began = time.monotonic()
    counts, failures = fuzz(options.files, options.seed, options.processes, options.keep)
    seconds = time.monotonic() - began
    print(f"{table(counts)}\n{seconds:.0f} s, {options.files / seconds:,.0f} files a second")
    print("\n".join(failures[:50]))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
