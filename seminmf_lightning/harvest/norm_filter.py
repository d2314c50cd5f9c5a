"""Drop rows with an outlying norm, or scale them down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.checks import one_of, real_number
from seminmf_lightning.harvest.layers import Layer
from seminmf_lightning.harvest.row_selection import Rows


@dataclass(frozen=True)
class NormFilter:
    """Treat rows whose norm is far above the median, such as the first token of many language models.

    >>> NormFilter("clip", factor=5.0).limits
    {}

    Raises:
        TypeError, ValueError: a bad name or factor.
    """

    name: str = "none"
    """``none``, ``drop`` or ``clip`` (scale down to the limit)."""
    factor: float = 10.0
    """The limit of a layer, in units of the median norm of a sample."""
    limits: dict[str, float] = field(default_factory=dict)
    """Largest accepted norm of each layer."""

    def __post_init__(self) -> None:
        one_of("norm_filter", self.name, ("none", "drop", "clip"))
        real_number("norm_factor", self.factor, 1, exclusive=True)

    def calibrated(self, rows: Mapping[Layer, Rows]) -> NormFilter:
        """Return the filter with the limits of a sample of rows."""
        return replace(self, limits=norm_limits(rows, self.factor))

    def apply(self, layer: Layer, rows: Rows, norms: Tensor) -> tuple[Rows, Tensor, int]:
        """Return the remaining rows, their norms, and how many were dropped or clipped."""
        limit = self.limits.get(str(layer))
        if self.name == "none" or limit is None:
            return rows, norms, 0
        over = norms > limit
        count = int(over.sum())
        if not count:
            return rows, norms, 0
        if self.name == "drop":
            return rows.take(np.flatnonzero(~over.cpu().numpy())), norms[~over], count
        factors = torch.where(over, limit / norms, torch.ones_like(norms))
        clipped = (rows.values.float() * factors[:, None]).to(rows.values.dtype)
        return Rows(clipped, rows.origin), norms.clamp(max=limit), count


def row_norms(values: Tensor) -> Tensor:
    """Return the Euclidean norms (m,) of rows (m, d), in float32.

    >>> row_norms(torch.tensor([[3.0, 4.0]]))
    tensor([5.])
    """
    return values.float().norm(dim=1)


def norm_limits(rows: Mapping[Layer, Rows], factor: float) -> dict[str, float]:
    """Return for each layer ``factor`` times the median norm of its nonzero rows; zeros have no limit.

    >>> norm_limits({Layer("a"): Rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), {})}, factor=10.0)
    {'a': 50.0}
    """
    limits = {}
    for layer, part in rows.items():
        norms = row_norms(part.values)
        if (norms > 0).any():
            limits[str(layer)] = factor * float(norms[norms > 0].double().median())
    return limits
