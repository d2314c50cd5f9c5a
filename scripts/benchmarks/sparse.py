"""Sparse training: objective against time, R2 against nonzeros per row, rows/s of the encoders."""

from __future__ import annotations

import statistics as stats
import time
from argparse import Namespace
from collections.abc import Callable

import lightning
import torch
from torch import Tensor

from benchmarks.checks import check_atoms, check_codes
from benchmarks.dataset import held_out_objective, load, null_atoms
from seminmf_lightning import ActivationDataModule, SemiNMFModule
from seminmf_lightning.core.objective import lasso_duality_gap
from seminmf_lightning.encoders.lasso import Lasso
from seminmf_lightning.encoders.omp import OMP
from seminmf_lightning.learners import Recipe, make_learner


def curve(options: Namespace) -> dict[str, float]:
    """Held-out objective after each of ``options.seconds`` of training, evaluation off the clock."""
    return {
        f"{mark:g} s": held_out_objective(D, options.held_out, options.l1_penalty)
        for mark, D in trained(options, l1_penalty=options.l1_penalty, nonnegative=options.signs)
    }


def untrained(options: Namespace) -> dict[str, float]:
    """Held-out objective of atoms that nothing was learned for."""
    atoms = null_atoms(load(options.path), options.concepts, options.signs)
    return {name: held_out_objective(D, options.held_out, options.l1_penalty) for name, D in atoms.items()}


def quality(options: Namespace) -> dict[str, float]:
    """Held-out R2 of OMP codes of ``options.nonzeros`` per row: with atoms trained so for
    ``options.seconds``, or with those of ``options.peer`` that nothing was learned for."""
    A, (nonzeros,) = load(options.held_out), options.nonzeros
    encoder = OMP(nonzeros=nonzeros)
    if options.peer is None:
        D = trained(options, encoder=encoder)[-1][1]
    else:
        D = null_atoms(load(options.path), options.concepts, options.signs)[options.peer]
    Z = encoder.precise(D)(A)
    results = {
        f"{nonzeros} nonzeros": check_codes(A, Z, check_atoms(D), nonzeros=nonzeros),
        f"{nonzeros} nonzeros, L0": float((Z != 0).sum(dim=1).float().mean()),
    }
    if options.peer is None:
        results[f"{nonzeros} nonzeros, dead fraction"] = float((Z == 0).all(dim=0).float().mean())
    return results


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
        D = learner.updated(D) if learner.due() else D
        if position % len(A) < step:
            D = learner.end_epoch(D)
        if A.is_cuda:
            torch.cuda.synchronize()
        while marks and time.perf_counter() - began >= marks[0]:
            snapshots.append((marks.pop(0), D.cpu().clone()))
    return snapshots


def encoding(options: Namespace) -> dict[str, float]:
    """Rows/s of each encoder on held-out rows with a dictionary trained for seconds."""
    A = load(options.held_out).to(options.device)
    D = trained(options, l1_penalty=options.l1_penalty)[-1][1].to(A)
    torch.save(D.cpu(), options.dictionary)
    lasso = Lasso(l1_penalty=options.l1_penalty, precise_gap=1e-3)
    effort = lasso.calibrate(D, A[:256])
    training, precise = lasso.training(D, effort), lasso.precise(D, effort)
    results = {
        "lasso, as in training, rows/s": rate(training, A, options.repeats),
        "lasso, every row within 0.1 %, rows/s": rate(precise, A, options.repeats),
    }
    for nonzeros in options.nonzeros:
        encode = OMP(nonzeros=nonzeros).precise(D)
        results[f"omp, {nonzeros} nonzeros, rows/s"] = rate(encode, A, options.repeats)
        R2 = check_codes(A.cpu(), encode(A).cpu(), D.cpu(), nonzeros=nonzeros)
        results[f"omp, {nonzeros} nonzeros, R2"] = R2
    exact = lasso_duality_gap(
        A, Lasso(l1_penalty=options.l1_penalty, precise_gap=1e-5).precise(D)(A), D, options.l1_penalty
    )[0]
    loose = lasso_duality_gap(A, training(A), D, options.l1_penalty)[0]
    results["lasso, as in training, distance from the least objective"] = float(loose.sum() / exact.sum()) - 1
    return results


def rate(encode: Callable[[Tensor], Tensor], A: Tensor, repeats: int) -> float:
    encode(A[:1024])  # compiles and warms up
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        for rows in A.split(1024):
            encode(rows)
        if A.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return len(A) / stats.median(seconds)


def run(options: Namespace) -> dict[str, float]:
    """Held-out objective after training with Lightning, for one batch size and seed."""
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
