"""Everything that is measured of a finished dictionary beside the five figures of a run."""

from __future__ import annotations

from torch import Tensor
from torchmetrics import MetricCollection

from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.metrics.codes import ConceptUse, Hoyer
from seminmf_lightning.metrics.correlation import CodeCorrelation
from seminmf_lightning.metrics.gap import OptimalityGap
from seminmf_lightning.metrics.reconstruction import RelativeError


def dictionary_metrics(
    D: Tensor, normalizer: Normalizer | None = None, *, certify: bool = False
) -> MetricCollection:
    """``relative_l2``, ``hoyer``, ``density``, ``energy``, ``code_correlation_max`` and ``_mean``; of ``D``
    (k, d).

    ``update(A=A, A_hat=A_hat, Z=Z)`` adds rows and reconstructions in data units, and codes; ``compute()``
    gives one dict. ``certify`` adds ``optimality_gap``, which is of use where codes are least squares
    (l1_penalty = 0).
    """
    metrics = [RelativeError(), Hoyer(), ConceptUse(D), CodeCorrelation(len(D))]
    gap = [OptimalityGap(D, normalizer)] if certify else []
    return MetricCollection([*metrics, *gap], compute_groups=False).to(D.device)
