"""Read a run directory in any state: settings, metrics, status.

Training writes ``.hydra/`` when it starts, ``metrics.json`` when it ends, ``error.txt`` when it fails.
"""

from __future__ import annotations

import glob
import json
import os
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from seminmf_lightning.io.schema import conform, is_finite
from seminmf_lightning.io.untrusted import file_size, parse_json

METRICS_FILE, ERROR_FILE = "metrics.json", "error.txt"
ERROR_BYTES = 4096
"""Bytes of ``error.txt`` that are read."""
MAX_YAML_DEPTH = 50
METRICS = ("r2", "l0", "reconstruction_loss", "dead_fraction", "optimality_gap", "seconds")
"""Metrics that runs are compared by."""
REQUIRED = ("r2", "l0", "reconstruction_loss")
LOCATIONS = ("run_dir", "ckpt_path")
"""Settings that hold the location of a run, not its behaviour."""


@dataclass(frozen=True)
class Run:
    """One run directory.

    - ``status``: ``finished``, ``failed`` (there is ``error.txt``, or a metric is missing or not finite) or
      ``unfinished``; ``reason`` explains it, and says of a finished run if a later attempt to resume it
      failed.
    - ``overridden``: keys given on the command line.
    - ``settings``: every setting by its dotted key, defaults included.
    - ``metrics``: :data:`METRICS` from ``metrics.json``; None where a value is absent or not finite.

    >>> Run(Path("a"), "finished", metrics={"r2": 0.5, "l0": 3.0}).r2
    0.5
    """

    path: Path
    status: str
    reason: str = ""
    overridden: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def r2(self) -> float:
        return self._finite("r2")

    @property
    def l0(self) -> float:
        return self._finite("l0")

    def _finite(self, name: str) -> float:
        value = self.metrics.get(name)
        if value is None:
            raise ValueError(f"{self.path}: no {name}, {self.status} ({self.reason})")
        return value


def find_runs(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return the run directories at or below the given directories and globs, 2 before 10.

    Raises:
        FileNotFoundError: a path does not exist, or there is no run below it.
    """
    runs: set[Path] = set()
    for path in [os.fspath(path) for path in paths]:
        directories = [match for match in [path, *glob.glob(path)] if os.path.isdir(match)]
        if not directories:
            raise FileNotFoundError(
                f"{path}: no such directory; sweeps are in multirun/<date>/<time>, runs in outputs/"
            )
        below = {Path(run).resolve() for directory in directories for run in _runs_below(directory)}
        if not below:
            raise FileNotFoundError(
                f"{path}: no run in it; a run directory holds .hydra/overrides.yaml or {METRICS_FILE}"
            )
        runs |= below
    return sorted(
        runs, key=lambda run: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(run))]
    )


def _runs_below(directory: str) -> Iterable[str]:
    for path, folders, files in os.walk(directory):
        if METRICS_FILE in files or os.path.isfile(os.path.join(path, ".hydra", "overrides.yaml")):
            folders.clear()
            yield path


def read_run(path: Path) -> Run:
    """Read a run directory; problems are reported in ``status`` and ``reason``, never as an exception."""
    try:
        overridden, settings = _read_settings(path / ".hydra")
    except Exception as error:  # YAML errors have no common base class
        return Run(path, "failed", f".hydra: {_one_line(error)}")
    metrics: dict[str, float | None] = {}
    try:
        metrics, reason = _checked(read_metrics(path))
        status = "failed" if reason else "finished"
        if not reason and (path / ERROR_FILE).is_file():
            reason = _one_line(f"an attempt to resume it failed: {_read_error(path)}")
    except FileNotFoundError:
        status, reason = _without_metrics(path)
    except (OSError, ValueError) as error:
        status, reason = "failed", _one_line(str(error).replace(f"{path}{os.sep}", ""))
    return Run(path, status, reason, overridden, settings, metrics)


def read_metrics(run: Path) -> dict[str, Any]:
    """Return the content of ``metrics.json`` in a run directory.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not a JSON object.
    """
    path = run / METRICS_FILE
    file_size(path)
    metrics = parse_json(path, path.read_bytes(), "JSON")
    conform(path, metrics, {})
    return metrics


def _checked(metrics: Mapping[str, Any]) -> tuple[dict[str, float | None], str]:
    """Return the finite values of :data:`METRICS`, and what is wrong with the others."""
    wrong = [
        f"{name} is {(metrics[name] or repr(metrics[name])) if name in metrics else 'missing'}"
        for name in METRICS
        if not is_finite(metrics.get(name)) and (name in REQUIRED or metrics.get(name) is not None)
    ]
    values = {name: float(metrics[name]) if is_finite(metrics.get(name)) else None for name in METRICS}
    return values, _one_line(", ".join(wrong))


def _without_metrics(path: Path) -> tuple[str, str]:
    if (path / ERROR_FILE).is_file():
        return "failed", _one_line(_read_error(path))
    resumable = (path / "checkpoints" / "last.ckpt").is_file()
    return "unfinished", f"no {METRICS_FILE}; " + (
        "it can be resumed from checkpoints/last.ckpt" if resumable else "no checkpoint"
    )


def _read_settings(folder: Path) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return keys given on the command line, and all settings: as composed by Hydra if saved, else as
    typed."""
    typed: dict[str, Any] = {}
    for override in _read_yaml(folder / "overrides.yaml", []):
        key, _, value = override.partition("=")
        typed[key.lstrip("+~")] = "(removed)" if key.startswith("~") else value
    choices = _read_yaml(folder / "hydra.yaml", {}).get("hydra", {}).get("runtime", {}).get("choices", {})
    groups = {group: choice for group, choice in choices.items() if not group.startswith("hydra/")}
    settings = typed | groups | dict(_flattened(_read_yaml(folder / "config.yaml", {})))
    return tuple(key for key in typed if key not in LOCATIONS), {
        key: value for key, value in settings.items() if key not in LOCATIONS
    }


def _read_yaml(path: Path, default: Any) -> Any:
    """Read a file of Hydra's as JSON values; refuse deep nesting, and aliases, which can fill the memory."""
    if not path.is_file():
        return default
    text, depth = path.read_text(encoding="utf-8"), 0
    for event in yaml.parse(text):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > MAX_YAML_DEPTH:
            raise ValueError(f"{path}: aliases (*name) and more than {MAX_YAML_DEPTH} levels are not read")
    return json.loads(json.dumps(yaml.safe_load(text), default=str))


def _flattened(node: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _read_error(path: Path) -> str:
    with open(path / ERROR_FILE, "rb") as file:
        return file.read(ERROR_BYTES).decode("utf-8", "replace")


def _one_line(text: object) -> str:
    return textwrap.shorten(str(text), 160, placeholder=" ...")
