"""What a network is shown: one file a kind of input, found by its name."""

from seminmf_lightning.harvest.inputs.base import Inputs, Unreadable

__all__ = ["Inputs", "Unreadable"]
