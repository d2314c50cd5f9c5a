"""Keep the codes of some rows: how concepts are active together, and how each one's codes are distributed.

Legend:  Z (m, k) codes of one batch   s sampled rows
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.linalg import unit_atoms

BINS = 40
QUANTILES = (0.95, 0.75, 0.5, 0.25)
"""Quantiles of a concept's nonzero codes at which rows are shown beside the strongest."""


class Histogram(NamedTuple):
    """Counts of nonzero codes in equal bins from ``low`` to ``high``, one of which begins or ends at 0."""

    low: float
    high: float
    counts: list[int]


class QuantileRow(NamedTuple):
    """A row whose code is at a quantile of the codes of one sign."""

    quantile: float
    value: float
    """``|z|``."""
    row: int


class CodeSample:
    """The codes of every s-th row, at most ``limit`` numbers.

    >>> sample = CodeSample(concepts=2, n_rows=3)
    >>> sample.update(torch.tensor([[1.0, 1.0], [2.0, -2.0], [3.0, 3.0]]), torch.arange(3))
    >>> round(float(sample.vectors()[0] @ sample.vectors()[1]), 5)
    1.0
    >>> codes, row_ids = sample.by_concept()
    >>> codes[1].tolist(), row_ids.tolist()
    ([1.0, -2.0, 3.0], [0, 1, 2])
    """

    def __init__(self, concepts: int, n_rows: int, limit: int = 2**25) -> None:
        self.step = max(1, -(-n_rows * concepts // limit))
        self.concepts = concepts
        self.parts: list[Tensor] = []
        self.row_ids: list[Tensor] = []

    def update(self, Z: Tensor, row_ids: Tensor) -> None:
        """Add codes Z (m, k) of rows ``row_ids`` (m,)."""
        kept = row_ids % self.step == 0
        self.parts.append(Z[kept].float().cpu())
        self.row_ids.append(row_ids[kept].cpu())

    def vectors(self) -> Tensor:
        """Return centred ``|z|`` of each concept, of norm 1 (k, s): their products are Pearson
        correlations."""
        Z = torch.cat(self.parts).abs()
        return unit_atoms((Z - Z.mean(dim=0)).T)

    def by_concept(self) -> tuple[Tensor, Tensor]:
        """Return the codes (k, s) of each concept, and the ids (s,) of their rows."""
        return torch.cat(self.parts).T.contiguous(), torch.cat(self.row_ids)


def histogram(codes: Tensor, bins: int = BINS) -> Histogram | None:
    """Return the distribution of the nonzero codes among (s,); None if there is none.

    >>> histogram(torch.tensor([0.0, 4.0, 1.0, -4.0]), bins=4)
    Histogram(low=-4.0, high=4.0, counts=[1, 0, 1, 1])
    """
    used = codes[codes != 0].double().numpy()
    if not len(used):
        return None
    low, high = min(0.0, float(used.min())), max(0.0, float(used.max()))
    negative = round(bins * -low / (high - low))  # whole bins on both sides, so that no bin mixes the signs
    negative = min(max(negative, int(low < 0)), bins - int(high > 0))
    width = max(-low / max(negative, 1), high / max(bins - negative, 1))
    low, high = -negative * width, (bins - negative) * width
    counts = np.histogram(used.clip(low, high), bins=bins, range=(low, high))[0]  # rounding leaves none out
    return Histogram(low, high, counts.tolist())


def quantile_rows(
    sizes: Tensor, row_ids: Tensor, shown: Collection[int], quantiles: Collection[float] = QUANTILES
) -> list[QuantileRow]:
    """Return the row at each quantile of the positive ones of ``sizes`` (s,); no row twice, none of
    ``shown``.

    >>> quantile_rows(torch.tensor([3.0, 0.0, 1.0, 2.0]), torch.arange(4), shown={0}, quantiles=(0.9, 0.5))
    [QuantileRow(quantile=0.5, value=2.0, row=3)]
    """
    values, order = sizes.sort()
    values, order = values[values > 0], order[values > 0]
    found: list[QuantileRow] = []
    for quantile in quantiles if len(values) else ():
        at = round(quantile * (len(values) - 1))
        row = int(row_ids[order[at]])
        if row not in shown and all(row != other.row for other in found):
            found.append(QuantileRow(quantile, float(values[at]), row))
    return found
