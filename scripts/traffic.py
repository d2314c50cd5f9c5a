"""One process of several that train a small dictionary and count what they exchange: started by ``scale.py --measure``."""

from __future__ import annotations

import seminmf_lightning  # isort: skip  # noqa: F401  # before torch, for which it chooses how threads wait

import argparse
import json
import os
from typing import Any
from unittest import mock

import lightning
import torch
import torch.distributed as dist

from seminmf_lightning import ActivationDataModule, SemiNMFModule

ROWS, BATCH = 40_000, 4_096
FEATURES, CONCEPTS = 256, 128


class Traffic(lightning.Callback):
    """Counts from the first batch to the last: calls of ``all_reduce``, their bytes, and bytes on the loopback interface."""

    def __init__(self) -> None:
        self.messages, self.payload, self.wire = 0, 0, 0

    def all_reduce(self, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.messages += 1
        self.payload += tensor.numel() * tensor.element_size()
        return self._real(tensor, *args, **kwargs)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._real = dist.all_reduce
        dist.barrier()
        self._before = loopback_bytes()
        self._patch = mock.patch.object(dist, "all_reduce", self.all_reduce)
        self._patch.start()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._patch.stop()
        dist.barrier()
        self.wire = loopback_bytes() - self._before


def loopback_bytes() -> int:
    """Bytes that all processes of this network have sent."""
    with open("/proc/self/net/dev") as file:
        line = next(line for line in file if line.strip().startswith("lo:"))
    return int(line.partition(":")[2].split()[8])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--penalty", type=float, required=True)
    penalty = parser.parse_args().penalty
    A = torch.randn(ROWS, FEATURES, generator=torch.Generator().manual_seed(0))
    traffic = Traffic()
    trainer = lightning.Trainer(
        accelerator="cpu", strategy="ddp", devices=int(os.environ["WORLD_SIZE"]), max_epochs=1, callbacks=[traffic],
        use_distributed_sampler=False, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    module = SemiNMFModule(CONCEPTS, l1_penalty=penalty, solver="pgd" if penalty else {"name": "hals", "max_iter": 0})
    trainer.fit(module, ActivationDataModule(A, batch_size=BATCH, val_fraction=0))
    if trainer.is_global_zero:
        settings = {"rows": ROWS, "batch": BATCH, "features": FEATURES, "concepts": CONCEPTS}
        print(json.dumps(settings | {"messages": traffic.messages, "payload": traffic.payload, "wire": traffic.wire}))


if __name__ == "__main__":
    main()
