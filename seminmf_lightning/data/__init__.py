"""Activations: sources, held-out rows, order and batches."""

from seminmf_lightning.data.datamodule import ActivationDataModule
from seminmf_lightning.data.live import HarvestDataModule
from seminmf_lightning.data.shard import Shard
from seminmf_lightning.data.sources.base import Source
from seminmf_lightning.data.sources.demo import DemoRows
from seminmf_lightning.data.sources.hf import HuggingFaceRows
from seminmf_lightning.data.sources.npy import NpyRows
from seminmf_lightning.data.sources.object_store import ObjectStoreRows
from seminmf_lightning.data.sources.safetensors import SafetensorsRows
from seminmf_lightning.data.sources.shards import HarvestedRows
from seminmf_lightning.data.sources.synthetic import PlantedRows
from seminmf_lightning.data.sources.tensor import TensorRows

__all__ = [
    "ActivationDataModule", "DemoRows", "HarvestDataModule", "HarvestedRows", "HuggingFaceRows", "NpyRows",
    "ObjectStoreRows", "PlantedRows", "SafetensorsRows", "Shard", "Source", "TensorRows",
]  # fmt: skip
