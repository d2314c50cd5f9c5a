"""Networks and how they are fed: one file a library, found by its name."""

from seminmf_lightning.harvest.models.base import Loaded, Model

__all__ = ["Loaded", "Model"]
