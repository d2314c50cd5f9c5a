"""Show what was learned: the report, its charts and examples, and the comparison of runs."""

from seminmf_lightning.explain.page import ReportOptions, make_report, require_libraries
from seminmf_lightning.explain.provenance import Harvested, Origins, RowNumbers, origins_of
from seminmf_lightning.explain.runs import Run, find_runs, read_metrics, read_run

__all__ = [
    "Harvested",
    "Origins",
    "ReportOptions",
    "RowNumbers",
    "Run",
    "find_runs",
    "make_report",
    "origins_of",
    "read_metrics",
    "read_run",
    "require_libraries",
]
