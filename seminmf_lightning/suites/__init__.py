"""Evaluation suites of ``seminmf evaluate suite=...``: one file each, found by its name."""

from seminmf_lightning.suites.base import Context, Estimate, Line, Result, Suite, estimate

__all__ = ["Context", "Estimate", "Line", "Result", "Suite", "estimate"]
