"""Model libraries: one file each, found by its name."""

from seminmf_lightning.harvest.models.base import Loaded, Model

__all__ = ["Loaded", "Model"]
