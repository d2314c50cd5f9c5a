"""From a network to rows: hooks on its layers, positions with their origin, shards on disk or batches for
training."""

from seminmf_lightning.harvest.harvester import Harvester
from seminmf_lightning.harvest.job import HarvestJob
from seminmf_lightning.harvest.recipe import HarvestRecipe
from seminmf_lightning.harvest.store import Store, StoreError

__all__ = ["HarvestJob", "HarvestRecipe", "Harvester", "Store", "StoreError"]
