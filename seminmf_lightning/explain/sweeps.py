"""Compare the runs of a sweep: settings that vary, the frontier of r2 against l0, stability over seeds."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from seminmf_lightning.core.stability import Stability, stability_of
from seminmf_lightning.dictionary_file import load_dictionary
from seminmf_lightning.explain.runs import Run


def varying(runs: Iterable[Run]) -> list[str]:
    """Return the command-line keys whose values differ between runs, in the order first given.

    Runs whose settings cannot be read are left out.
    """
    runs = [run for run in runs if run.settings]
    keys = dict.fromkeys(key for run in runs for key in run.overridden)
    return [key for key in keys if len({str(run.settings.get(key)) for run in runs}) > 1]


def frontier(runs: Iterable[Run]) -> list[Run]:
    """Return the finished runs on the Pareto front of high r2 and low l0, sorted by l0.

    >>> runs = [Run(Path(name), "finished", metrics={"l0": l0, "r2": r2})
    ...         for name, l0, r2 in (("a", 2.0, 0.5), ("b", 3.0, 0.4), ("c", 4.0, 0.9))]
    >>> [run.path.name for run in frontier(runs)]
    ['a', 'c']
    """
    kept: list[Run] = []
    for run in sorted(_finished(runs), key=lambda run: (run.l0, -run.r2)):
        if not kept or run.r2 > kept[-1].r2 or (run.l0, run.r2) == (kept[-1].l0, kept[-1].r2):
            kept.append(run)
    return kept


def best(runs: Iterable[Run], max_l0: float = math.inf) -> Run | None:
    """Return the finished run of highest r2 with at most ``max_l0`` nonzeros per row; None if there is
    none."""
    return max(
        (run for run in _finished(runs) if run.l0 <= max_l0), key=lambda run: (run.r2, -run.l0), default=None
    )


def stability(runs: Iterable[Run]) -> dict[Path, Stability]:
    """Return how well seeds agree once their mean atom is removed, for runs that differ only in the seed.

    If a dictionary cannot be read or compared, its runs have no stability, and a warning says why.
    """
    result: dict[Path, Stability] = {}
    for group in groups_by_all_but_seed(runs):
        one_per_seed = {str(run.settings.get("seed")): run for run in group}.values()
        if len(one_per_seed) < 2:
            continue
        try:
            saved = [load_dictionary(run.path) for run in one_per_seed]
            free = saved[0].constraint.sign_is_free
            found = stability_of([one.D for one in saved], sign_is_free=free, centered=True)
        except (FileNotFoundError, ValueError) as error:
            warnings.warn(
                f"no stability for the {len(group)} runs beside {group[0].path}: {error}", stacklevel=2
            )
        else:
            result |= {run.path: found for run in group}
    return result


def groups_by_all_but_seed(runs: Iterable[Run]) -> list[list[Run]]:
    """Return the finished runs in groups that differ in nothing but the seed."""
    groups = defaultdict(list)
    for run in _finished(runs):
        groups[
            tuple(sorted((key, str(value)) for key, value in run.settings.items() if key != "seed"))
        ].append(run)
    return list(groups.values())


def _finished(runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if run.status == "finished"]
