"""Finished and unfinished run directories, side by side.

A run directory is what ``scripts/train.py`` writes: ``.hydra/overrides.yaml`` from the start,
``metrics.json`` at the end, ``error.txt`` if it failed.
"""

from __future__ import annotations

import glob
import math
import os
import re
import textwrap
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import yaml
from omegaconf import OmegaConf

from seminmf_lightning.core.similarity import matched_share
from seminmf_lightning.dictionary_file import load_dictionary
from seminmf_lightning.io.schema import conform, is_finite
from seminmf_lightning.io.untrusted import file_size, parse_json

METRICS, ERROR = "metrics.json", "error.txt"
ERROR_BYTES = 4096
DEEPEST = 50  # level of a YAML file
FIGURES = ("r2", "l0", "reconstruction_loss", "dead_fraction", "optimality_gap", "seconds")
NEEDED = ("r2", "l0", "reconstruction_loss")
PLACES = ("run_dir", "ckpt_path")  # where a run lies, not what it does


@dataclass(frozen=True)
class Run:
    """One run directory as found.

    - ``status``: finished, failed (``error.txt``, or figures that are broken or not finite), unfinished;
      ``reason`` says why, and of a finished one that an attempt to go on failed.
    - ``overridden``: keys given on the command line.  ``settings``: every key with its value, dotted,
      defaults included.
    - ``figures``: of ``metrics.json``; None where there is none or where it is not finite.
    """

    path: Path
    status: str
    reason: str = ""
    overridden: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def r2(self) -> float:
        return self._finite("r2")

    @property
    def l0(self) -> float:
        return self._finite("l0")

    def _finite(self, name: str) -> float:
        value = self.figures.get(name)
        if value is None:
            raise ValueError(f"{self.path}: no {name}, {self.status} ({self.reason})")
        return value


class Stability(NamedTuple):
    """Mean share of matched atoms over pairs of seeds, and the number of seeds."""

    share: float
    seeds: int


def find_runs(places: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The run directories that are, or lie below, the given directories and globs; 2 comes before 10.

    Raises:
        FileNotFoundError: a place is not there, or holds no run.
    """
    found: set[Path] = set()
    for place in places:
        directories = [
            match for match in [os.fspath(place), *glob.glob(os.fspath(place))] if os.path.isdir(match)
        ]
        if not directories:
            raise FileNotFoundError(
                f"{place}: no such directory; sweeps are in multirun/<date>/<time>, runs in outputs/"
            )
        runs = {Path(run).resolve() for directory in directories for run in _below(directory)}
        if not runs:
            raise FileNotFoundError(
                f"{place}: no run in it; a run directory holds .hydra/overrides.yaml or {METRICS}"
            )
        found |= runs
    return sorted(
        found,
        key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(path))],
    )


def _below(directory: str) -> Iterable[str]:
    for path, folders, files in os.walk(directory):
        if METRICS in files or os.path.isfile(os.path.join(path, ".hydra", "overrides.yaml")):
            folders.clear()
            yield path


def read_run(path: Path) -> Run:
    """Read a run directory, whatever state it is in."""
    try:
        overridden, settings = _settings(path / ".hydra")
    except Exception as error:  # the YAML reader's own errors have no common root
        return Run(path, "failed", f".hydra: {_short(error)}")
    try:
        figures, reason = _figures(path / METRICS)
        status = "failed" if reason else "finished"
        if not reason and (path / ERROR).is_file():
            reason = _short(f"an attempt to go on failed: {_error(path)}")
    except FileNotFoundError:
        figures, (status, reason) = {}, _without_metrics(path)
    except (OSError, ValueError) as error:
        figures, status, reason = {}, "failed", _short(error)
    return Run(path, status, reason, overridden, settings, figures)


def _settings(folder: Path) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Keys on the command line, and all values: of the composed config where it is there, else as typed."""
    typed: dict[str, Any] = {}
    for override in _yaml(folder / "overrides.yaml", []):
        key, _, value = override.partition("=")
        typed[key.lstrip("+~")] = "(removed)" if key.startswith("~") else value
    choices = _yaml(folder / "hydra.yaml", {}).get("hydra", {}).get("runtime", {}).get("choices", {})
    groups = {group: choice for group, choice in choices.items() if not group.startswith("hydra/")}
    settings = typed | groups | dict(_flat(_yaml(folder / "config.yaml", {})))
    return tuple(key for key in typed if key not in PLACES), {
        k: v for k, v in settings.items() if k not in PLACES
    }


def _yaml(path: Path, otherwise: Any) -> Any:
    """A file of Hydra's: not deep, and without aliases, of which a few lines can stand for more than there is
    memory."""
    if not path.is_file():
        return otherwise
    depth = 0
    for event in yaml.parse(path.read_text(encoding="utf-8")):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > DEEPEST:
            raise ValueError(f"{path}: aliases (*name) and more than {DEEPEST} levels are not read")
    return OmegaConf.to_container(OmegaConf.load(path))


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _figures(path: Path) -> tuple[dict[str, float | None], str]:
    """The figures that are finite, and what is wrong with the others."""
    file_size(path)
    read = parse_json(METRICS, path.read_bytes(), "JSON")
    conform(METRICS, read, {})
    figures: dict[str, float | None] = dict.fromkeys(FIGURES)
    wrong = []
    for name in FIGURES:
        value = read.get(name)
        if is_finite(value):
            figures[name] = float(value)
        elif name in NEEDED or value is not None:
            wrong.append(f"{name} is {(value or repr(value)) if name in read else 'missing'}")
    return figures, _short(", ".join(wrong))


def _without_metrics(path: Path) -> tuple[str, str]:
    if (path / ERROR).is_file():
        return "failed", _short(_error(path))
    resumable = (path / "checkpoints" / "last.ckpt").is_file()
    return "unfinished", f"no {METRICS}; " + (
        "checkpoints/last.ckpt can go on" if resumable else "no checkpoint"
    )


def _error(path: Path) -> str:
    return (path / ERROR).read_bytes()[:ERROR_BYTES].decode("utf-8", "replace")


def _short(text: object) -> str:
    return textwrap.shorten(str(text), 160, placeholder=" ...")


def varying(runs: Iterable[Run]) -> list[str]:
    """Keys given to some run whose values differ between the runs (that say which), in the order first
    given."""
    runs = [run for run in runs if run.settings]
    keys = dict.fromkeys(key for run in runs for key in run.overridden)
    return [key for key in keys if len({str(run.settings.get(key)) for run in runs}) > 1]


def frontier(runs: Iterable[Run]) -> list[Run]:
    """Finished runs that no other beats (one figure better, the other at least as good: high r2, low l0), by
    l0."""
    kept: list[Run] = []
    for run in sorted(_finished(runs), key=lambda run: (run.l0, -run.r2)):
        if not kept or run.r2 > kept[-1].r2 or (run.l0, run.r2) == (kept[-1].l0, kept[-1].r2):
            kept.append(run)
    return kept


def best(runs: Iterable[Run], max_l0: float = math.inf) -> Run | None:
    """The finished run of the highest r2 with at most ``max_l0`` nonzeros a row; None if none has so few."""
    return max(
        (run for run in _finished(runs) if run.l0 <= max_l0), key=lambda run: (run.r2, -run.l0), default=None
    )


def stability(runs: Iterable[Run], cosine: float = 0.9) -> dict[Path, Stability]:
    """For every finished run with others that differ in nothing but the seed: ``matched_share``, meaned over
    pairs of seeds.

    A dictionary that can't be read or compared costs its group the figure, with a warning.
    """
    found: dict[Path, Stability] = {}
    for group in _alike_but_for_seed(runs):
        one_a_seed = {str(run.settings.get("seed")): run for run in group}.values()
        if len(one_a_seed) < 2:
            continue
        try:
            dictionaries = [load_dictionary(run.path).D for run in one_a_seed]
            share = fmean(matched_share(*pair, cosine=cosine) for pair in combinations(dictionaries, 2))
        except (FileNotFoundError, ValueError) as error:
            warnings.warn(
                f"no stability for the {len(group)} runs beside {group[0].path}: {error}", stacklevel=2
            )
        else:
            found |= {run.path: Stability(share, len(dictionaries)) for run in group}
    return found


def _alike_but_for_seed(runs: Iterable[Run]) -> list[list[Run]]:
    groups = defaultdict(list)
    for run in _finished(runs):
        groups[
            tuple(sorted((key, str(value)) for key, value in run.settings.items() if key != "seed"))
        ].append(run)
    return list(groups.values())


def _finished(runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if run.status == "finished"]
