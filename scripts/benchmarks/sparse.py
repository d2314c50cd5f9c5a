"""Sparse training: objective against time, R2 against nonzeros per row, rows/s of the encoders."""

from __future__ import annotations

import statistics as stats
import time
import warnings
from argparse import Namespace
from collections.abc import Callable

import lightning
import torch
from torch import Tensor

from benchmarks.dataset import held_out_objective, load, r2
from benchmarks.peers import OMP_NONZEROS
from seminmf_lightning import ActivationDataModule, SemiNMFModule
from seminmf_lightning.core.objective import lasso_duality_gap
from seminmf_lightning.encoders.lasso import Lasso
from seminmf_lightning.encoders.omp import OMP
from seminmf_lightning.learners import Recipe, make_learner

REPEATS = 5
ROOFLINE_ITERATIONS = (
    4  # matrix products (n, k) (k, k) of the lasso: two iterations, the initial one, one for Q
)


def curve(options: Namespace) -> dict[str, float]:
    """Held-out objective after each of ``options.seconds`` of training, evaluation off the clock."""
    return {
        f"{mark:g} s": held_out_objective(D, options.held_out, options.l1_penalty)
        for mark, D in trained(
            options, l1_penalty=options.l1_penalty, nonnegative=options.signs or "dictionary"
        )
    }


def quality(options: Namespace) -> dict[str, float]:
    """Held-out R2 of OMP codes with ``options.nonzeros`` per row, trained so for ``options.seconds``."""
    A = load(options.held_out)
    encoder = OMP(nonzeros=options.nonzeros)
    D = trained(options, encoder=encoder)[-1][1]
    Z = encoder.precise(D)(A)
    return {"r2": r2(A, Z @ D), "dead fraction": float((Z == 0).all(dim=0).float().mean())}


def trained(options: Namespace, **recipe: object) -> list[tuple[float, Tensor]]:
    """Return the dictionary at each of ``options.seconds`` since the start, initialisation included."""
    A = load(options.path).to(options.device)
    marks = sorted(options.seconds)
    if "encoder" not in recipe and A.device.type == "cpu":  # compiled once per machine, then cached
        Lasso(l1_penalty=0.1).precise(torch.eye(2))(torch.ones(1, 2))
    elif A.device.type == "cpu":
        OMP(nonzeros=1).precise(torch.eye(2))(torch.ones(1, 2))
    began = time.perf_counter()
    learner = make_learner(Recipe(nb_concepts=options.concepts, normalize="none", **recipe), A.shape[1])  # type: ignore[arg-type]
    learner.to_(A.device)
    D = learner.initialise(A[:16_384])
    step = learner.update_rows or len(A)
    position, snapshots = 0, []
    while marks:
        rows = torch.arange(position, position + step, device=A.device) % len(A)
        position += step
        learner.observe(A[rows], D)
        learner.absorb()
        D = learner.improve(D)
        if position % len(A) < step:
            D = learner.end_epoch(D)
        if A.is_cuda:
            torch.cuda.synchronize()
        while marks and time.perf_counter() - began >= marks[0]:
            snapshots.append((marks.pop(0), D.cpu().clone()))
    return snapshots


def encoding(options: Namespace) -> dict[str, float]:
    """Rows/s of each encoder on held-out rows with a dictionary trained for seconds, and the roofline."""
    A = load(options.held_out).to(options.device)
    D = trained(options, l1_penalty=options.l1_penalty)[-1][1].to(A)
    torch.save(D.cpu(), options.dictionary)
    lasso = Lasso(l1_penalty=options.l1_penalty, precise_gap=1e-3)
    effort = lasso.calibrate(D, A[:256])
    encoders = {
        "lasso, as in training": lasso.training(D, effort),
        "lasso, every row within 0.1 %": lasso.precise(D, effort),
    } | {f"omp, {nonzeros} nonzeros": OMP(nonzeros=nonzeros).precise(D) for nonzeros in OMP_NONZEROS}
    results = {f"{name}, rows/s": rate(encode, A) for name, encode in encoders.items()}
    for nonzeros in OMP_NONZEROS:
        name = f"omp, {nonzeros} nonzeros"
        results[f"{name}, r2"] = r2(A, encoders[name](A) @ D)
    exact = lasso_duality_gap(
        A, Lasso(l1_penalty=options.l1_penalty, precise_gap=1e-5).precise(D)(A), D, options.l1_penalty
    )[0]
    loose = lasso_duality_gap(A, encoders["lasso, as in training"](A), D, options.l1_penalty)[0]
    results["lasso, as in training, distance from the least objective"] = float(loose.sum() / exact.sum()) - 1
    square = D @ D.T

    def products(rows: Tensor) -> Tensor:
        Z = rows @ D.T
        for _ in range(ROOFLINE_ITERATIONS - 1):
            Z = Z @ square
        return Z

    results["roofline: matrix products of the batched lasso alone, rows/s"] = rate(products, A)
    return results


def rate(encode: Callable[[Tensor], Tensor], A: Tensor) -> float:
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for rows in A.split(1024):
            encode(rows)
        if A.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return len(A) / stats.median(seconds)


def run(options: Namespace) -> dict[str, float]:
    """Held-out objective after training with Lightning, for one batch size and seed."""
    warnings.filterwarnings("ignore")
    data = ActivationDataModule(
        str(options.path), batch_size=options.batch_size, val_fraction=0, seed=options.seed
    )
    module = SemiNMFModule(
        options.concepts, solver="hals", l1_penalty=options.l1_penalty, normalize="none", seed=options.seed
    )
    trainer = lightning.Trainer(
        accelerator="auto", devices=1, max_epochs=options.epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, data)
    return {
        "objective": held_out_objective(
            module.dictionary.detach().cpu(), options.held_out, options.l1_penalty
        )
    }
