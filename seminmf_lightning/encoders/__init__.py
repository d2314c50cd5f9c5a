"""Encoders: rows and a dictionary to codes; one file each, found by the name of the file."""

from seminmf_lightning.encoders.base import Effort, Encode, Encoder, Penalised

__all__ = ["Effort", "Encode", "Encoder", "Penalised"]
