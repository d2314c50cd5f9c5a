"""The interface of every evaluation suite: settings in, a table of lines with standard errors out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch


class Estimate(NamedTuple):
    """A number and its standard error; None if it has none."""

    value: float
    error: float | None = None


def estimate(values: Iterable[float]) -> Estimate:
    """Return the mean of values (n,) and its standard error, ``std / sqrt(n)`` with n - 1 degrees of freedom.

    The values are those of independent repeats: tasks, seeds.  A paired difference is the estimate of the
    differences.  NaN without values; no error for one value.

    >>> estimate([1.0, 2.0, 3.0]).value, round(estimate([1.0, 2.0, 3.0]).error, 3)
    (2.0, 0.577)
    """
    numbers = np.asarray(list(values), dtype=np.float64)
    if not len(numbers):
        return Estimate(math.nan)
    error = float(numbers.std(ddof=1) / math.sqrt(len(numbers))) if len(numbers) > 1 else None
    return Estimate(float(numbers.mean()), error)


class Line(NamedTuple):
    """One line of the table: a dictionary with an encoder, or a baseline."""

    name: str
    values: Mapping[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a suite measured: the content of its table, its picture and its JSON file."""

    title: str
    lines: list[Line]
    columns: Mapping[str, str]
    """Heading of each value that the table shows, in order; the file holds every value."""
    plotted: tuple[str, ...] = ()
    """Values that the picture shows, all in one unit."""
    notes: list[str] = field(default_factory=list)
    """How to read the table, and what was left out."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """More for the file alone, as plain values."""

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON: ``<name>`` and ``<name>_se``; None for NaN and for no error.

        >>> line = Line("run", {"auc": Estimate(0.75, 0.01)})
        >>> Result(title="", lines=[line], columns={}).plain()["lines"]
        [{'line': 'run', 'auc': 0.75, 'auc_se': 0.01}]
        """
        lines = []
        for line in self.lines:
            record: dict[str, Any] = {"line": line.name}
            for name, (value, error) in line.values.items():
                record |= {name: value if math.isfinite(value) else None}
                record |= {} if error is None else {f"{name}_se": error}
            lines.append(record)
        return {"title": self.title, "lines": lines, "notes": self.notes, **self.details}


@dataclass(frozen=True)
class Context:
    """What a suite is given by the command."""

    run: Path
    """A finished run directory, or its dictionary."""
    data: Mapping[str, Any] | None = None
    """Settings of rows that replace the run's own data."""
    model: Mapping[str, Any] | None = None
    """Settings of a network, as for a harvest."""
    inputs: Mapping[str, Any] | None = None
    """Settings of what the network is run on, as for a harvest."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    show: Callable[[str, int, int], None] = lambda what, done, total: None
    """Shows progress: what is done now, steps done, steps in all."""


@dataclass(frozen=True, kw_only=True)
class Suite(ABC):
    """One file in this folder with a frozen keyword-only dataclass of settings, and one YAML.

    ``configs/suite/<name>.yaml`` has the settings under the package ``suite.<name>``.  Constructors check
    settings; ``run`` checks its inputs before it starts long work.
    """

    @abstractmethod
    def run(self, context: Context) -> Result:
        """Measure and return the table.

        Raises:
            ValueError, OSError: an input cannot be used; the message names it.
            ModuleNotFoundError: a package is missing; the message has the extra.
        """
