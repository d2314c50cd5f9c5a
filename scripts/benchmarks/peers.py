"""Run other methods on the same rows and check what they return; libraries: pip install -e '.[bench]'."""

from __future__ import annotations

import statistics as stats
import time
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import autoencoders
from benchmarks.checks import WRONG, WrongOutputError, check_atoms, check_codes, squared_error
from benchmarks.dataset import held_out_objective, load

SAE_RATE = 3e-3
"""Best R2 after 12 s of batches 256, 1024, 4096 and rates 3e-4, 1e-3, 3e-3, 1e-2; 4096 with 1e-2 ties."""
SPAMS_BATCH = 512


def overcomplete_mu(options: Namespace) -> dict[str, float]:
    """Run overcomplete's SemiNMF(solver="mu") on A^T: its nonnegative factor is Z, ours is D."""
    from overcomplete.optimization import SemiNMF

    A = load(options.path)
    model = SemiNMF(nb_concepts=options.concepts, solver="mu", tol=0)
    torch.manual_seed(0)
    began = time.perf_counter()
    atoms, codes = (factor.T for factor in model.fit(A.T.contiguous(), max_iter=options.iterations))
    seconds = time.perf_counter() - began
    check_codes(A, codes, check_atoms(atoms, nonnegative=True))
    return {"seconds": seconds, "loss": squared_error(A, codes, atoms) / A.numel()}


def spams_curve(options: Namespace) -> dict[str, float]:
    """Held-out objective of spams.trainDL(posD=True) after each of ``options.seconds``, one run each."""
    import spams

    X = np.asfortranarray(np.load(options.path, allow_pickle=False).T)
    results = {}
    for seconds in options.seconds:
        D = spams.trainDL(
            X, K=options.concepts, lambda1=options.l1_penalty, iter=-int(seconds), mode=2, posD=True, modeD=0,
            batchsize=SPAMS_BATCH, numThreads=options.threads, verbose=False,
        )  # fmt: skip
        results[f"{seconds:g} s"] = checked_objective(D.T.copy(), options)
    return results


def checked_objective(D: np.ndarray, options: Namespace) -> float:
    """Return the held-out objective of atoms in the unit ball, of the signs asked for."""
    atoms = check_atoms(torch.from_numpy(D).float(), longest=1.0, nonnegative=options.signs != "none")
    objective = held_out_objective(atoms, options.held_out, options.l1_penalty)
    zero = float(load(options.held_out).square().sum(dim=1).mean()) / 2
    if not objective < zero:
        raise WrongOutputError(f"objective {objective:.4g}, that of zero codes is {zero:.4g}")
    return objective


def spams_encoding(options: Namespace) -> dict[str, float | str]:
    """Rows/s of spams.lasso and spams.omp with the dictionary our own encoders are timed with."""
    import spams

    A = load(options.held_out)
    X, D = np.asfortranarray(A.numpy().T), torch.load(options.dictionary, weights_only=True)
    unit = torch.nn.functional.normalize(D)
    threads = options.threads

    def lasso() -> Any:
        atoms = np.asfortranarray(D.numpy().T)
        return spams.lasso(X, atoms, lambda1=options.l1_penalty, mode=2, numThreads=threads)

    def pursuit(nonzeros: int) -> Any:
        # Without eps it stops at once and returns no nonzeros.
        return spams.omp(X, np.asfortranarray(unit.numpy().T), L=nonzeros, eps=0.0, numThreads=threads)

    results = checked_rate("lasso, every row exact", A, D, lasso, options.repeats)
    for nonzeros in options.nonzeros:
        name = f"omp, {nonzeros} nonzeros"
        work = lambda nonzeros=nonzeros: pursuit(nonzeros)  # noqa: E731
        results |= checked_rate(name, A, unit, work, options.repeats, nonzeros)
    return results


def checked_rate(
    name: str, A: Tensor, D: Tensor, work: Callable[[], Any], repeats: int, nonzeros: int | None = None
) -> dict[str, float | str]:
    """Return rows/s and R2 of ``work``, which returns sparse codes (k, n); or what is wrong with them."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        codes = work()
        seconds.append(time.perf_counter() - began)
    try:
        r2 = check_codes(A, torch.from_numpy(codes.toarray().T).float(), D, nonzeros=nonzeros)
    except WrongOutputError as error:
        return {f"{name}, rows/s": f"{WRONG}: {error}"}
    return {f"{name}, rows/s": len(A) / stats.median(seconds), f"{name}, R2": r2}


def sklearn_curve(options: Namespace) -> dict[str, float]:
    """Held-out objective of MiniBatchDictionaryLearning at each of ``options.seconds``, signs as ours."""
    from sklearn.decomposition import MiniBatchDictionaryLearning

    A = np.load(options.path, allow_pickle=False)
    model = MiniBatchDictionaryLearning(
        n_components=options.concepts, alpha=options.l1_penalty,
        positive_dict=options.signs != "none", fit_algorithm="cd",
        batch_size=512, random_state=0, n_jobs=options.threads,
    )  # fmt: skip
    results, position, spent = {}, 0, 0.0
    marks = sorted(options.seconds)
    while marks:
        began = time.perf_counter()
        model.partial_fit(np.take(A, np.arange(position, position + 512), axis=0, mode="wrap"))
        spent += time.perf_counter() - began
        position += 512
        while marks and spent >= marks[0]:
            results[f"{marks.pop(0):g} s"] = checked_objective(model.components_, options)
    return results


def autoencoder(options: Namespace) -> dict[str, float]:
    """Held-out R2 and nonzeros per row of an autoencoder of a kind of ``autoencoders.py`` after a time."""
    A, held_out = load(options.path), load(options.held_out)
    (count,), kind = options.nonzeros, options.peer
    model = autoencoders.Autoencoder(A.mean(dim=0), options.concepts, count, kind, seed=0)
    # Its clock is that of the processor, over all threads.
    autoencoders.train(A, held_out, SAE_RATE, options.seconds[0] * options.threads, model)
    with torch.no_grad():
        Z = torch.cat([model.kept(model.codes(part)) for part in held_out.split(4096)])
        r2 = check_codes(
            held_out, Z, check_atoms(model.W_dec, longest=1.0), model.b_dec, nonzeros=count,
            nonnegative=kind != "abs_topk",
        )  # fmt: skip
    return {f"{count} nonzeros": r2, f"{count} nonzeros, L0": float((Z != 0).sum(dim=1).float().mean())}
