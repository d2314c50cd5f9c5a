"""Starting dictionaries: one file each, found by its name."""

from seminmf_lightning.inits.base import Init

__all__ = ["Init"]
