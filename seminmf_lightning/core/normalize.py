"""One scalar for the whole data set, so that a penalty means the same on every layer of every network.

``normalised = (a - mean) / scale``, with ``scale`` the mean row norm of ``a - mean`` and ``mean`` zero unless
``normalize=center``.  Both are saved with the dictionary; ``decode`` undoes them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.rows import finite, real_matrix

MODES: tuple[str, ...] = ("none", "scale", "center")


@dataclass(frozen=True)
class Normalizer:
    """``scale`` > 0 in data units, and ``mean`` (d,) in data units or None without centring.

    >>> normalizer = Normalizer.fit(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), "scale")
    >>> normalizer.scale, normalizer.apply(torch.tensor([[3.0, 6.0]])).tolist()
    (3.0, [[1.0, 2.0]])
    """

    scale: float = 1.0
    mean: Tensor | None = None

    @classmethod
    def fit(cls, A: Tensor, mode: str) -> Normalizer:
        """Fit to rows ``A`` (n, d): ``none``; ``scale`` to a mean row norm of 1; ``center``, then scale."""
        if mode == "none":
            return cls()
        mean = A.mean(dim=0, dtype=torch.float64) if mode == "center" else None
        if mean is not None:
            A = A.double() - mean
        # Scaled by the largest entry, because squares of very small or large ones leave the range of a float.
        low, high = A.aminmax() if A.numel() else (A.new_zeros(()), A.new_zeros(()))
        largest = max(-float(low), float(high))
        if largest == 0:
            return cls(1.0, mean)
        norms = torch.cat([(rows.double() / largest).norm(dim=1) for rows in A.split(1024)])
        return cls(float(norms.mean()) * largest, mean)

    @classmethod
    def centred(cls, mean: Tensor | np.ndarray, features: int) -> Normalizer:
        """Take a mean (d,) as given; a ValueError if it is not finite or of another shape."""
        if tuple(np.shape(mean)) != (features,):
            raise ValueError(f"mean has the shape {tuple(np.shape(mean))}, but D has {features} features")
        return cls(1.0, finite("mean", real_matrix("mean", mean[None]).double())[0])

    def apply(self, A: Tensor) -> Tensor:
        """Return rows in normalised units, in A's own precision."""
        if self.mean is not None:
            A = A - self.mean.to(A)
        return A if self.scale == 1.0 else A * (1.0 / self.scale)

    def undo(self, A: Tensor) -> Tensor:
        """Return rows in data units."""
        A = A if self.scale == 1.0 else A * self.scale
        return A if self.mean is None else A + self.mean.to(A)

    def to(self, device: torch.device) -> Normalizer:
        """Return the same normaliser with its mean on ``device``."""
        return self if self.mean is None else Normalizer(self.scale, self.mean.to(device))
