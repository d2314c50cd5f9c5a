"""Nonnegative dictionaries of concepts from activations: A (n, d) ~ Z (n, k) D (k, d), D >= 0, Z free in
sign."""

import os

# OpenMP threads wait for more work by spinning for a millisecond or so, on the cores that compiled encoders
# then want.  A tenth of that is enough for torch.  Read when torch is first imported: no effect if that was
# before.
os.environ.setdefault("GOMP_SPINCOUNT", "30000")

from seminmf_lightning.data import ActivationDataModule
from seminmf_lightning.estimator import SemiNMF
from seminmf_lightning.training.module import SemiNMFModule

__all__ = ["ActivationDataModule", "SemiNMF", "SemiNMFModule"]
