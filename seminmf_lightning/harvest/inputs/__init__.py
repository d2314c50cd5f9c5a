"""Kinds of input: one file each, found by its name."""

from seminmf_lightning.harvest.inputs.base import Inputs, Unreadable

__all__ = ["Inputs", "Unreadable"]
