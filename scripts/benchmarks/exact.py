"""Exact training (l1_penalty = 0): accumulating the second moment, solving on it, memory, processes."""

from __future__ import annotations

import statistics as stats
import time
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from seminmf_lightning import ActivationDataModule, SemiNMFModule
from seminmf_lightning.estimator import BLOCK_ROWS
from seminmf_lightning.learners import Recipe, make_learner

REPEATS = 5


def pass_rate(options: Namespace) -> dict[str, float]:
    """Rows/s of accumulating the statistics, reading included, against A^T A of the same blocks in memory."""
    data = ActivationDataModule(str(options.path), val_fraction=0, order="sequential", batch_size=16_384)
    data.setup()
    learner = make_learner(Recipe(nb_concepts=options.concepts), data.features)
    D = learner.initialise(data.sample())
    blocks = [A.clone() for A, *_ in data.train_dataloader()]
    plain, ours = [], []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for A in blocks:
            _ = A.T @ A
        plain.append(time.perf_counter() - began)
        began = time.perf_counter()
        for A, *_ in data.train_dataloader():
            learner.observe(A, D)
            learner.absorb()
        ours.append(time.perf_counter() - began)
    ratio = stats.median(p / o for p, o in zip(plain, ours, strict=True))
    return {"rows/s": len(data.source) / stats.median(ours), "share of the plain A^T A rate": ratio}


def solution(options: Namespace) -> dict[str, float]:
    """Seconds of ``hals`` to ``options.target`` (mean squared error per element) and to convergence, reading
    included."""
    A = torch.from_numpy(np.load(options.path, allow_pickle=False)).float()
    to_target, to_end = [], []
    for _ in range(REPEATS):
        reached = None
        began = time.perf_counter()
        learner = make_learner(Recipe(nb_concepts=options.concepts), A.shape[1])
        D = learner.initialise(A[:4096])
        for rows in A.split(BLOCK_ROWS):
            learner.observe(rows, D)
            learner.absorb()
        while not learner.converged():
            D = learner.improve(D)
            if reached is None and learner.mean_squared_error(D) <= options.target:
                reached = time.perf_counter() - began
        to_end.append(time.perf_counter() - began)
        to_target.append(float("nan") if reached is None else reached)
    gap = learner.optimality_gap(D)
    assert gap is not None
    return {
        "seconds to target": stats.median(to_target),
        "seconds to convergence": stats.median(to_end),
        "loss": learner.mean_squared_error(D),
        "optimality gap": gap,
    }


def memory(options: Namespace) -> dict[str, float]:
    """Anonymous memory after one epoch, MB (Linux)."""
    data = ActivationDataModule(str(options.path))
    data.setup()
    learner = make_learner(Recipe(nb_concepts=options.concepts), data.features)
    D = learner.initialise(data.sample())
    for A, *_ in data.train_dataloader():
        learner.observe(A, D)
        learner.absorb()
    lines = Path("/proc/self/status").read_text().splitlines()
    return {"anonymous MB": int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024}


class _EpochClock(lightning.Callback):
    """Rows per second of the first epoch, after its first batch."""

    def __init__(self) -> None:
        self.began, self.rows, self.rate = 0.0, 0, 0.0

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        assert isinstance(pl_module, SemiNMFModule)
        if batch_idx == 0:
            self.began, self.rows = time.perf_counter(), pl_module.rows_seen
        loader: Any = trainer.train_dataloader
        if batch_idx == len(loader) - 1 and not self.rate:
            self.rate = (pl_module.rows_seen - self.rows) / (time.perf_counter() - self.began)


def processes(options: Namespace) -> dict[str, float]:
    """Rows/s of the first epoch of training with ``options.processes`` processes of one thread each."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    clock = _EpochClock()
    data = ActivationDataModule(str(options.path), val_fraction=0)
    module = SemiNMFModule(
        options.concepts, solver={"name": "hals", "max_iter": 0}, l1_penalty=options.l1_penalty
    )
    trainer = lightning.Trainer(
        accelerator="cpu", devices=options.processes, max_epochs=1, logger=False,
        strategy="ddp" if options.processes > 1 else "auto",
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, num_sanity_val_steps=0, limit_val_batches=0, callbacks=[clock],
    )  # fmt: skip
    trainer.fit(module, data)
    return {"rows/s": clock.rate} if trainer.is_global_zero else {}
