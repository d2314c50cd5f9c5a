"""Kinds of input: one file each, discovered by file name."""

from seminmf_lightning.harvest.inputs.base import Inputs, Unreadable

__all__ = ["Inputs", "Unreadable"]
