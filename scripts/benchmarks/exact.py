"""Exact training (l1_penalty = 0): the second moment, the whole fit, memory, processes."""

from __future__ import annotations

import statistics as stats
import time
from argparse import Namespace
from typing import Any

import lightning
import torch

from benchmarks.checks import check_atoms, check_codes, squared_error
from benchmarks.dataset import anonymous_kilobytes, load
from seminmf_lightning import ActivationDataModule, SemiNMF, SemiNMFModule
from seminmf_lightning.core.objective import eckart_young_bound
from seminmf_lightning.learners import Recipe, make_learner

MOST_STEPS = 500


def pass_rate(options: Namespace) -> dict[str, float]:
    """Rows/s of accumulating the statistics, reading included, against A^T A of the same blocks in memory."""
    data = ActivationDataModule(str(options.path), val_fraction=0, order="sequential", batch_size=16_384)
    data.setup()
    learner = make_learner(Recipe(nb_concepts=options.concepts), data.features)
    D = learner.initialise(data.sample())
    blocks = [A.clone() for A, *_ in data.train_dataloader()]
    plain, ours = [], []
    for _ in range(options.repeats):
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


def fit(options: Namespace) -> dict[str, float]:
    """Seconds of the whole ``SemiNMF.fit`` with the solver ``options.peer``, codes of all rows included: to
    ``options.target`` (mean squared error per element), by the fewest steps that reach it, and to
    convergence."""
    A = load(options.path)

    def run(steps: int, repeats: int) -> tuple[float, float, SemiNMF]:
        seconds: list[float] = []
        for _ in range(repeats):
            model = SemiNMF(options.concepts, options.peer)
            began = time.perf_counter()
            Z, D = model.fit(A, max_iter=steps)
            seconds.append(time.perf_counter() - began)
        check_codes(A, Z, check_atoms(D, nonnegative=True))
        return stats.median(seconds), squared_error(A, Z, D) / A.numel(), model

    seconds, loss, model = run(MOST_STEPS, options.repeats)
    C = A.double().T @ A.double()
    bound = float(eckart_young_bound(C, options.concepts)) / A.numel()
    results = {
        "seconds to convergence": seconds, "steps": model.iterations, "loss": loss,
        "optimality gap": loss / bound - 1 if bound > 0 else 0.0,
    }  # fmt: skip
    if options.target is not None:
        most = model.iterations
        steps = next((n for n in range(1, most + 1) if run(n, 1)[1] <= options.target), None)
        reached = float("nan") if steps is None else run(steps, options.repeats)[0]
        results |= {"seconds to the loss of mu": reached, "steps to it": float(steps or "nan")}
    return results


def memory(options: Namespace) -> dict[str, float]:
    """Anonymous memory after one epoch, MB (Linux)."""
    data = ActivationDataModule(str(options.path))
    data.setup()
    learner = make_learner(Recipe(nb_concepts=options.concepts), data.features)
    D = learner.initialise(data.sample())
    for A, *_ in data.train_dataloader():
        learner.observe(A, D)
        learner.absorb()
    return {"anonymous MB": anonymous_kilobytes() / 1024}


class _EpochClock(lightning.Callback):
    """Rows per second of the first epoch, after its first batch."""

    def __init__(self) -> None:
        self.began, self.rows, self.rate = 0.0, 0, 0.0

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:
            self.began, self.rows = time.perf_counter(), pl_module.rows_seen
        loader: Any = trainer.train_dataloader
        if batch_idx == len(loader) - 1 and not self.rate:
            self.rate = (pl_module.rows_seen - self.rows) / (time.perf_counter() - self.began)


def processes(options: Namespace) -> dict[str, float]:
    """Rows/s of the first epoch of training with ``options.processes`` processes of one thread each."""
    torch.set_num_threads(1)
    clock = _EpochClock()
    data = ActivationDataModule(str(options.path), val_fraction=0)
    module = SemiNMFModule(options.concepts, solver={"name": "hals", "max_iter": 0})
    trainer = lightning.Trainer(
        accelerator="cpu", devices=options.processes, max_epochs=1, logger=False,
        strategy="ddp" if options.processes > 1 else "auto",
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, num_sanity_val_steps=0, limit_val_batches=0, callbacks=[clock],
    )  # fmt: skip
    trainer.fit(module, data)
    return {"rows/s": clock.rate} if trainer.is_global_zero else {}
