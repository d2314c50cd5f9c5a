"""Formats of other tools, one file each, found by its name: what the command ``export`` writes."""

from seminmf_lightning.integrations.formats.base import Content, Format

__all__ = ["Content", "Format"]
