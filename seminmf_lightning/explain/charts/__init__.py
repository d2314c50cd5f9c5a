"""Charts of the report, one per file, discovered by file name."""

from seminmf_lightning.explain.charts.base import Chart, Plot, Series

__all__ = ["Chart", "Plot", "Series"]
