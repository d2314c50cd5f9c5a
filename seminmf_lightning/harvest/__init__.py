"""Harvest rows from the layers of a network, each with its origin, to disk or straight into training."""

from seminmf_lightning.harvest.harvester import Harvester
from seminmf_lightning.harvest.job import HarvestJob
from seminmf_lightning.harvest.recipe import HarvestRecipe
from seminmf_lightning.harvest.store import Store, StoreError

__all__ = ["HarvestJob", "HarvestRecipe", "Harvester", "Store", "StoreError"]
