"""Training with a penalty at many concepts and in several processes."""

from __future__ import annotations

import statistics as stats
import threading
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from benchmarks.checks import check_atoms, check_codes
from benchmarks.dataset import anonymous_kilobytes, load
from benchmarks.results import Results
from seminmf_lightning import ActivationDataModule, SemiNMFModule
from seminmf_lightning.encoders.lasso import Lasso
from seminmf_lightning.encoders.omp import OMP

CONCEPTS = (512, 2_048, 8_192, 16_384)
ROWS = 65_536
MANY_ROWS = 100_000
"""Rows for the largest number of concepts, and for the second number to compare its R2 with."""
NONZEROS = 12
HELD_OUT = 1_000
EPOCHS = 6
SHARED_CONCEPTS, SHARED_ROWS = 8_192, 20_000


class _Clock(lightning.Callback):
    """Wall seconds and processor seconds of each epoch, and the most anonymous memory of training."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.processor: list[float] = []
        self.most = 0

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        threading.Thread(target=self._watch, daemon=True).start()

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._began = time.perf_counter(), time.process_time()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        wall, processor = self._began
        self.wall.append(time.perf_counter() - wall)
        self.processor.append(time.process_time() - processor)

    def _watch(self) -> None:
        while True:
            self.most = max(self.most, anonymous_kilobytes())
            time.sleep(0.02)


def train(options: Namespace) -> dict[str, float]:
    """Train ``options.rows`` rows in ``options.processes`` processes of one thread each.

    With ``options.nonzeros``, R2 of that many nonzeros on rows that were not trained on; with
    ``options.dictionary``, D is written there.
    """
    torch.set_num_threads(1)
    clock, A = _Clock(), np.load(options.path, mmap_mode="r", allow_pickle=False)
    A = np.ascontiguousarray(A[: options.rows])
    atoms = torch.eye(options.concepts, A.shape[1])
    Lasso(l1_penalty=options.l1_penalty).training(atoms, ())(torch.from_numpy(A[:1]))  # compiles
    data = ActivationDataModule(A, val_fraction=0)
    solver = {"name": "hals"} | ({"shard": options.shard} if options.shard else {})
    module = SemiNMFModule(options.concepts, solver=solver, l1_penalty=options.l1_penalty, normalize="none")
    trainer = lightning.Trainer(
        accelerator="cpu", devices=options.processes, max_epochs=options.epochs, logger=False,
        strategy="ddp" if options.processes > 1 else "auto",
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, num_sanity_val_steps=0, limit_val_batches=0, callbacks=[clock],
    )  # fmt: skip
    before = anonymous_kilobytes()
    trainer.fit(module, data)
    own = torch.tensor([(clock.most - before) / 1024])
    largest = float(trainer.strategy.reduce(own, reduce_op="max"))
    if not trainer.is_global_zero:
        return {}
    D = module.dictionary.detach()
    wall, processor = (stats.median(x[1:] or x) for x in (clock.wall, clock.processor))
    results = {
        "seconds per epoch": wall, "rows/s": options.rows / wall,
        "rows/s times concepts, processor time": options.rows * options.concepts / processor,
        "memory of training, MB, the larger process": largest,
    }  # fmt: skip
    if options.nonzeros:
        X = load(options.held_out)[:HELD_OUT]
        Z = OMP(nonzeros=options.nonzeros).precise(D)(X)
        R2 = check_codes(X, Z, check_atoms(D, nonnegative=True), nonzeros=options.nonzeros)
        results[f"R2, {options.nonzeros} nonzeros"] = R2
    if options.dictionary:
        torch.save(D, options.dictionary)
    return results


def run(results: Results, path: Path, held_out: Path, folder: Path) -> None:
    """Add the tables: work per row, two processes, sums shared out by atoms."""
    l1_penalty = results.options.l1_penalty
    common = {
        "path": path, "held_out": held_out, "l1_penalty": l1_penalty, "shard": None, "dictionary": None,
        "epochs": 1, "nonzeros": 0, "processes": 1,
    }  # fmt: skip
    results.table(f"work per row: one epoch, one thread, l1_penalty={l1_penalty:g}")
    sizes = [(k, ROWS, 0) for k in CONCEPTS] + [(k, MANY_ROWS, NONZEROS) for k in (CONCEPTS[1], CONCEPTS[-1])]
    for k, rows, nonzeros in sizes:
        about = common | {"concepts": k, "rows": rows, "nonzeros": nonzeros}
        results.add(f"{k:,} concepts, {rows:,} rows", results.run("scale.train", **about))

    results.table(f"processes of one thread each, later epochs, medians, l1_penalty={l1_penalty:g}")
    for k in CONCEPTS[:2]:
        _compare(results, folder, common | {"concepts": k, "rows": MANY_ROWS, "epochs": EPOCHS}, None)

    results.table(f"solver.shard=atoms, processes of one thread each, l1_penalty={l1_penalty:g}")
    _compare(results, folder, common | {"concepts": SHARED_CONCEPTS, "rows": SHARED_ROWS}, "atoms")


def _compare(results: Results, folder: Path, common: dict[str, Any], shard: str | None) -> None:
    """Add one process, two, and their ratios and the distance of their dictionaries."""
    found, files = [], [folder / "one.pt", folder / "two.pt"]
    for count, file in enumerate(files, start=1):
        about = common | {"processes": count, "dictionary": file, "shard": shard}
        found.append(results.run("scale.train", **about))
        results.add(f"{common['concepts']:,} concepts, processes: {count}", found[-1])
    one, two = (torch.load(file, weights_only=True) for file in files)
    memory = "memory of training, MB, the larger process"
    results.add(f"{common['concepts']:,} concepts, two against one", {
        "rows/s": found[1]["rows/s"] / found[0]["rows/s"], memory: found[1][memory] / found[0][memory],
        "largest difference of D": float((one - two).abs().max()),
    })  # fmt: skip
