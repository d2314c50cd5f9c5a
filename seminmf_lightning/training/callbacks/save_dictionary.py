"""Write the portable file at the end of a run, with the network that its rows come from."""

from __future__ import annotations

from typing import Any

import lightning

from seminmf_lightning.data.network import network_of
from seminmf_lightning.dictionary_file import save_dictionary
from seminmf_lightning.training.module import SemiNMFModule


class SaveDictionary(lightning.Callback):
    """Write ``dictionary.safetensors`` when training ends, however it ends.

    Args:
        path: the file.
        config: metadata to store beside the module's own settings.
    """

    def __init__(self, path: str, config: dict[str, Any] | None = None) -> None:
        self.path, self.config = path, config or {}

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, SemiNMFModule)
        if trainer.is_global_zero:
            network = network_of(getattr(trainer, "datamodule", None))
            config = self.config | pl_module.plain_recipe() | ({"network": network} if network else {})
            save_dictionary(self.path, pl_module.dictionary, pl_module.normalizer, config, pl_module.effort)
