"""Starting dictionaries: one file each, found by the name of the file."""

from seminmf_lightning.inits.base import Init

__all__ = ["Init"]
