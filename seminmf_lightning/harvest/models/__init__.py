"""Model libraries: one file each, discovered by file name."""

from seminmf_lightning.harvest.models.base import Loaded, Model

__all__ = ["Loaded", "Model"]
