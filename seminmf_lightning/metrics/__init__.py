"""Figures of rows, codes and dictionaries, summed over batches and processes.

Those of dictionaries alone are in :mod:`seminmf_lightning.core.similarity`.
"""

from seminmf_lightning.metrics.codes import ConceptUse, Hoyer
from seminmf_lightning.metrics.collection import dictionary_metrics
from seminmf_lightning.metrics.correlation import CodeCorrelation
from seminmf_lightning.metrics.gap import OptimalityGap
from seminmf_lightning.metrics.reconstruction import (
    MEANINGS,
    ReconstructionMetrics,
    RelativeError,
    defined,
    described,
    in_data_units,
)

__all__ = [
    "MEANINGS",
    "CodeCorrelation",
    "ConceptUse",
    "Hoyer",
    "OptimalityGap",
    "ReconstructionMetrics",
    "RelativeError",
    "defined",
    "described",
    "dictionary_metrics",
    "in_data_units",
]
