"""Metrics of rows, codes and dictionaries: one file each, found by the name of the file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torchmetrics import Metric, MetricCollection

from seminmf_lightning.core.discovery import available
from seminmf_lightning.metrics.base import DictionaryMetric, Fitted, SummedMetric, Value
from seminmf_lightning.metrics.reconstruction import ReconstructionMetrics, in_data_units

__all__ = [
    "MEANINGS", "DictionaryMetric", "Fitted", "ReconstructionMetrics", "SummedMetric", "Value", "described",
    "dictionary_metrics", "evaluation_values", "finite_or_none", "in_data_units", "meanings",
]  # fmt: skip

RUN_VALUES = (
    *ReconstructionMetrics.values,
    Value("optimality_gap", "training loss / lower bound - 1"),
    Value("rows_seen", "training rows, with repeats", ","),
    Value("seconds", "wall time"),
)
"""The keys of a run's ``metrics.json``, measured on held-out rows, or on the training rows if none are."""


def evaluation_values() -> tuple[Value, ...]:
    """Return every value that ``evaluate`` reports: the run's own metrics, then the discovered ones."""
    discovered = (value for metric in available(DictionaryMetric).values() for value in metric.values)
    return (*ReconstructionMetrics.values, *discovered)


def meanings(values: Iterable[Value] | None = None) -> dict[str, str]:
    """Return the name and the one-line meaning of each single number, by default of ``evaluate``.

    >>> meanings()["hoyer"]
    "sparsity of each row's codes, 0 to 1"
    """
    values = evaluation_values() if values is None else values
    return {value.name: value.meaning for value in values if not value.per_concept}


def dictionary_metrics(fitted: Fitted) -> MetricCollection:
    """Return every discovered metric that applies to a dictionary.

    ``update(A=A, A_hat=A_hat, Z=Z)`` adds rows and reconstructions in data units, and their codes;
    ``compute()`` returns the values by name.

    >>> import torch
    >>> metrics = dictionary_metrics(Fitted(torch.eye(3)))
    >>> metrics.update(A=torch.eye(3), A_hat=torch.eye(3), Z=torch.eye(3))
    >>> metrics.compute()["relative_l2"]
    0.0
    """
    metrics: dict[str, Metric | MetricCollection] = {
        name: kind(fitted) for name, kind in available(DictionaryMetric).items() if kind.applies(fitted)
    }
    return MetricCollection(metrics, compute_groups=False).to(fitted.D.device)


def described(
    metrics: Mapping[str, Any], values: Iterable[Value] = RUN_VALUES
) -> Iterator[tuple[str, str, str]]:
    """Yield name, formatted value and meaning of each metric, for a table.

    >>> list(described({"rows_seen": 11350, "optimality_gap": None}))
    [('rows_seen', '11,350', 'training rows, with repeats'), ('optimality_gap', '-', 'training loss / ...')]
    """
    known = {value.name: value for value in values}
    for name, value in metrics.items():
        kind = known.get(name) or Value(name, "", "," if isinstance(value, int) else ".6g")
        shown = format(value, kind.format) if isinstance(value, int | float) else str(value)
        yield name, "-" if value is None else shown, kind.meaning


MEANINGS = meanings(RUN_VALUES)


def finite_or_none(value: Any) -> Any:
    """Return None in place of NaN and Inf, which JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
