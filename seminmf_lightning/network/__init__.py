"""A dictionary inside the network it was learned from: read codes, replace activations, change concepts."""

from seminmf_lightning.network.attach import Concepts, attach

__all__ = ["Concepts", "attach"]
