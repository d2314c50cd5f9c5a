"""Nonnegative dictionaries of concepts from activations: A (n, d) ~ Z (n, k) D (k, d), D >= 0, Z free in sign."""

from seminmf_lightning.data import ActivationDataModule
from seminmf_lightning.estimator import SemiNMF
from seminmf_lightning.module import SemiNMFModule

__all__ = ["ActivationDataModule", "SemiNMF", "SemiNMFModule"]
