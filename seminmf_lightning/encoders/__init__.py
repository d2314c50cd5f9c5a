"""Encoders, from rows and a dictionary to codes: one file each, found by its name."""

from seminmf_lightning.encoders.base import Effort, Encode, Encoder, FixedNonzeros, Penalised

__all__ = ["Effort", "Encode", "Encoder", "FixedNonzeros", "Penalised"]
