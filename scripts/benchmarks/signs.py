"""The four choices of signs: what each finds in planted rows, and libraries that solve the same problem."""

from __future__ import annotations

import statistics as stats
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from benchmarks.checks import check_atoms, check_codes, squared_error
from benchmarks.dataset import load, null_atoms
from benchmarks.results import OURS, compare
from seminmf_lightning import SemiNMF
from seminmf_lightning.core.constraints import CONSTRAINTS
from seminmf_lightning.data.sources.synthetic import PlantedRows
from seminmf_lightning.encoders.lasso import Lasso

PLANTED: dict[str, Any] = {"rows": 6000, "features": 64, "concepts": 256, "nonzeros": 5, "noise": 0.0058}
"""Noise of 2 % of the mean norm of a row."""
PENALTY, PLANTED_EPOCHS = 0.05, 150
EPOCHS = (1, 2, 4, 8, 16, 32)
MOST_ROWS = 1_000_000
"""Rows read by the longest of our runs, repeats of rows included."""
MOST_SECONDS = 30.0
"""A length of run is repeated until it took this long, or ``REPEATS`` times; its time is the median."""
PEER_ITERATIONS = (20, 60, 150, 300)
OUR_SECONDS, SKLEARN_SECONDS = (1, 2, 4, 7, 14), (7, 14, 30, 60)
REPEATS = 3
Points = dict[str, float]


def planted(options: Namespace) -> dict[str, float]:
    """Mean matched correlation of codes with the planted ones: each fit, random atoms, rows as atoms."""
    A, Z, D = PlantedRows(**PLANTED, nonnegative=options.truth).planted()
    results: dict[str, float] = {}
    for name, constraint in CONSTRAINTS.items():
        if constraint.is_nmf and A.min() < 0:
            continue
        model = SemiNMF(len(D), l1_penalty=PENALTY, nonnegative=name, tol=0)
        began = time.perf_counter()
        codes, _ = model.fit(A, max_iter=PLANTED_EPOCHS)
        results[f"{name}: seconds"] = time.perf_counter() - began
        absolute = not constraint.nonnegative_codes
        results[name] = matched(Z, codes, absolute)
        if name == options.truth:
            for null, atoms in null_atoms(A, len(D), name).items():
                encode = Lasso(l1_penalty=PENALTY, nonnegative=constraint.nonnegative_codes).precise(atoms)
                results[null] = matched(Z, encode(A / A.norm(dim=1).mean()), absolute)
    return results


def matched(Z: Tensor, codes: Tensor, absolute: bool) -> float:
    """Return the mean correlation of planted and found codes, matched one to one."""
    correlation = torch.corrcoef(torch.cat([Z.T, codes.T]))[: Z.shape[1], Z.shape[1] :].nan_to_num()
    correlation = correlation.abs() if absolute else correlation
    first, second = linear_sum_assignment(-correlation.numpy())
    return float(correlation[first, second].mean())


def ours(options: Namespace) -> Points:
    """Loss against seconds of a whole ``fit``, codes of all rows included, for several numbers of epochs."""
    A = load(options.path)
    SemiNMF(2, nonnegative=options.signs).fit(A[:64], max_iter=1)  # compiled once per machine, then cached

    def fit(epochs: int) -> tuple[Tensor, Tensor]:
        # NMF from parts of singular vectors, as scikit-learn starts.
        init = "svd" if CONSTRAINTS[options.signs].is_nmf else "data"
        model = SemiNMF(options.concepts, "hals", nonnegative=options.signs, init=init, tol=0)
        return model.fit(A, max_iter=epochs)

    lengths = tuple(epochs for epochs in EPOCHS if epochs * len(A) <= MOST_ROWS)
    return points(A, fit, lengths, nmf=CONSTRAINTS[options.signs].is_nmf)


def overcomplete(options: Namespace) -> Points:
    """Run overcomplete's SemiNMF(solver="mu") in its own direction: codes nonnegative, dictionary free."""
    from overcomplete.optimization import SemiNMF as Peer

    A = load(options.path)

    def fit(iterations: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        return Peer(nb_concepts=options.concepts, solver="mu", tol=0).fit(A, max_iter=iterations)

    return points(A, fit, PEER_ITERATIONS[-1:], nmf=False)


def sklearn_nmf(options: Namespace) -> Points:
    """Run scikit-learn's NMF with the solver ``options.peer``."""
    from sklearn.decomposition import NMF

    A = load(options.path)

    def fit(iterations: int) -> tuple[Tensor, Tensor]:
        init = "nndsvda" if options.peer == "mu" else "nndsvd"
        model = NMF(
            options.concepts, solver=options.peer, init=init, max_iter=iterations, tol=0, random_state=0
        )
        Z = model.fit_transform(A.numpy())
        return torch.from_numpy(Z), torch.from_numpy(model.components_)

    return points(A, fit, PEER_ITERATIONS, nmf=True)


def torch_nmf(options: Namespace) -> Points:
    """Run torchnmf's NMF, multiplicative updates of the squared error."""
    from torchnmf.nmf import NMF

    A = load(options.path)

    def fit(iterations: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        model = NMF(A.shape, rank=options.concepts)
        model.fit(A, beta=2, max_iter=iterations, tol=0)
        return model.H.detach(), model.W.detach().T

    return points(A, fit, PEER_ITERATIONS, nmf=True)


def points(
    A: Tensor, fit: Callable[[int], tuple[Tensor, Tensor]], lengths: tuple[int, ...], *, nmf: bool
) -> Points:
    """Return the loss after each length of run, by its median seconds."""
    result: Points = {}
    for length in lengths:
        seconds: list[float] = []
        while len(seconds) < REPEATS and sum(seconds) < MOST_SECONDS:
            began = time.perf_counter()
            Z, D = fit(length)
            seconds.append(time.perf_counter() - began)
        check_codes(A, Z, check_atoms(D, nonnegative=nmf), nonnegative=True)
        result[f"{stats.median(seconds):.3g} s"] = squared_error(A, Z, D) / A.numel()
    return result


def run(results: Any, folder: Path) -> None:
    """Measure all of it; ``results`` is that of scripts/benchmark.py."""
    from benchmarks.dataset import split

    options = results.options
    path, held_out = split(options.data, folder)
    n = len(np.load(path, mmap_mode="r", allow_pickle=False))
    results.table("planted codes found: mean matched correlation, by signs of the truth")
    for truth in CONSTRAINTS:
        results.measure(truth, "signs.planted", truth=truth)
    for concepts in (64, 256):
        results.table(f"nonnegative=codes, {n:,} rows, {concepts} concepts, no penalty: loss after seconds")
        common: dict[str, Any] = {"path": path, "concepts": min(concepts, n)}
        measured = results.measure(OURS, "signs.ours", signs="codes", **common)
        name = "overcomplete mu in its own direction, 300 iterations"
        compare(
            results, name, measured, results.measure(name, "signs.overcomplete", "overcomplete", **common)
        )
    results.table(f"nonnegative=none, {n:,} rows, 512 concepts, penalty: held-out objective after seconds")
    penalised = {"held_out": held_out, "l1_penalty": options.l1_penalty, "signs": "none"}
    common = {"path": path, "concepts": min(512, n)} | penalised
    measured = results.measure(OURS, "sparse.curve", seconds=OUR_SECONDS, **common)
    name = "scikit-learn MiniBatchDictionaryLearning"
    peer = results.measure(name, "peers.sklearn_curve", "sklearn", seconds=SKLEARN_SECONDS, **common)
    compare(results, name, measured, peer)
    results.measure("nulls", "sparse.untrained", **common)
    if float(np.load(path, mmap_mode="r", allow_pickle=False).min()) < 0:
        path, _ = split(None, folder)  # NMF needs nonnegative rows: those of the demo
    results.table("nonnegative=both, nonnegative rows, 64 concepts: loss after seconds")
    common = {"path": path, "concepts": 64}
    measured = results.measure(OURS, "signs.ours", signs="both", **common)
    for name, function, package, solver in (
        ("scikit-learn NMF cd", "signs.sklearn_nmf", "sklearn", "cd"),
        ("scikit-learn NMF mu", "signs.sklearn_nmf", "sklearn", "mu"),
        ("torchnmf", "signs.torch_nmf", "torchnmf", None),
    ):
        compare(results, name, measured, results.measure(name, function, package, peer=solver, **common))
