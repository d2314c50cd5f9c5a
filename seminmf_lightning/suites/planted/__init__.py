"""Planted problems with ground truth, each in one file, found by its name."""

from seminmf_lightning.suites.planted.base import Planted, Sample, Split

__all__ = ["Planted", "Sample", "Split"]
