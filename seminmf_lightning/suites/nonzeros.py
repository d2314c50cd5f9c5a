"""Bring encoders to one number of nonzeros per row, so that dictionaries are compared at equal sparsity."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from seminmf_lightning.encoders import Encoder, FixedNonzeros, Penalised
from seminmf_lightning.learners.penalty import PenaltyTuner


def with_nonzeros(encoder: Encoder, D: Tensor, rows: Tensor, target: float) -> Encoder:
    """Return ``encoder`` with ``target`` nonzeros per row: by its own setting, or by tuning its penalty.

    Args:
        encoder: any; one without either knob is returned as it is.
        D: dictionary (k, d).
        rows: normalised rows (n, d) whose mean number of nonzeros counts.
        target: nonzeros per row.
    """
    if isinstance(encoder, FixedNonzeros):
        return replace(encoder, nonzeros=max(1, min(round(target), *D.shape)))
    if not isinstance(encoder, Penalised):
        return encoder
    tuner = PenaltyTuner(target)
    tuner.search(
        lambda penalty: float((encoder.with_penalty(penalty).precise(D)(rows) != 0).sum(dim=1).float().mean())
    )
    return encoder.with_penalty(tuner.penalty)


def least_size(Z: Tensor, target: float) -> float:
    """Return the size that ``target`` codes per row reach on average, over all rows of Z (n, k) together.

    >>> import torch
    >>> least_size(torch.tensor([[3.0, -2.0], [1.0, 0.0]]), 1)
    2.0
    """
    sizes = Z.abs().flatten()
    most = min(max(1, round(target * len(Z))), len(sizes))
    return float(sizes.topk(most).values[-1])
