"""Run other libraries on the same rows; they come with: pip install -e '.[bench]'."""

from __future__ import annotations

import statistics as stats
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.dataset import held_out_objective, load, r2

PEER_ITERATIONS = 300
REPEATS = 5
SAE_BATCH, SAE_RATE = 1024, 3e-3
"""Best R2 after 12 s of batches 256, 1024, 4096 and rates 3e-4, 1e-3, 3e-3, 1e-2; 4096 with 1e-2 ties."""
SPAMS_BATCH = 512
OMP_NONZEROS = (8, 16, 32, 64)


def overcomplete_mu(options: Namespace) -> dict[str, float]:
    """Run overcomplete's SemiNMF(solver="mu") on A^T: its nonnegative factor is Z, ours is D."""
    from overcomplete.optimization import SemiNMF

    A = load(options.path).float()
    model = SemiNMF(nb_concepts=options.concepts, solver="mu", tol=0)
    torch.manual_seed(0)
    began = time.perf_counter()
    Z, D = model.fit(A.T.contiguous(), max_iter=PEER_ITERATIONS)
    seconds = time.perf_counter() - began
    parts = zip(A.split(8192), D.T.split(8192), strict=True)
    squared = sum(float((rows - codes @ Z.T).square().sum(dtype=torch.float64)) for rows, codes in parts)
    return {"seconds": seconds, "loss": squared / A.numel()}


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
        results[f"{seconds:g} s"] = held_out_objective(
            torch.from_numpy(D.T.copy()), options.held_out, options.l1_penalty
        )
    return results


def spams_encoding(options: Namespace) -> dict[str, float]:
    """Rows/s of spams.lasso and spams.omp, and R2 of the latter, on the dictionary of our own encoders."""
    import spams

    X = np.asfortranarray(np.load(options.held_out, allow_pickle=False).T)
    D = torch.load(options.dictionary, weights_only=True).numpy()
    atoms = np.asfortranarray(D.T)
    unit = np.asfortranarray((D / np.linalg.norm(D, axis=1, keepdims=True).clip(1e-12)).T)
    threads, rows = options.threads, torch.from_numpy(X.T)
    results = {
        "lasso, rows/s": _rate(
            lambda: spams.lasso(X, atoms, lambda1=options.l1_penalty, mode=2, numThreads=threads), X.shape[1]
        )
    }
    for nonzeros in OMP_NONZEROS:
        # Without eps=0.0 it stops before the first atom and returns no codes.
        pursue = partial(spams.omp, X, unit, L=nonzeros, eps=0.0, numThreads=threads)
        Z = pursue()
        if Z.nnz < 0.9 * nonzeros * X.shape[1]:
            raise RuntimeError(
                f"spams.omp returned {Z.nnz / X.shape[1]:.2f} nonzeros per row, expected {nonzeros}"
            )
        results[f"omp, {nonzeros} nonzeros, r2"] = r2(rows, torch.from_numpy((unit @ Z).T))
        results[f"omp, {nonzeros} nonzeros, rows/s"] = _rate(pursue, X.shape[1])
    return results


def _rate(work: Callable[[], Any], rows: int) -> float:
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return rows / stats.median(seconds)


def sklearn_curve(options: Namespace) -> dict[str, float]:
    """Held-out objective of MiniBatchDictionaryLearning at each of ``options.seconds``, signs as ours."""
    from sklearn.decomposition import MiniBatchDictionaryLearning

    A = np.load(options.path, allow_pickle=False)
    model = MiniBatchDictionaryLearning(
        n_components=options.concepts, alpha=options.l1_penalty,
        positive_dict=options.signs != "none", fit_algorithm="cd",
        batch_size=512, random_state=0, n_jobs=options.threads,
    )  # fmt: skip
    results, position = {}, 0
    marks = sorted(options.seconds)
    spent = 0.0
    while marks:
        began = time.perf_counter()
        model.partial_fit(np.take(A, np.arange(position, position + 512), axis=0, mode="wrap"))
        spent += time.perf_counter() - began
        position += 512
        while marks and spent >= marks[0]:
            D = torch.from_numpy(model.components_.astype(np.float32))
            results[f"{marks.pop(0):g} s"] = held_out_objective(D, options.held_out, options.l1_penalty)
    return results


def topk_sae(options: Namespace) -> dict[str, float]:
    """Held-out R2 of overcomplete's TopKSAE at each of ``options.seconds``, by Adam on the squared error."""
    from overcomplete.sae import TopKSAE

    A, held_out = load(options.path), load(options.held_out)
    torch.manual_seed(0)
    model = TopKSAE(A.shape[1], nb_concepts=options.concepts, top_k=options.nonzeros, device=options.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=SAE_RATE)
    A = A.to(options.device)
    results, position, spent = {}, 0, 0.0
    marks = sorted(options.seconds)
    model.train()
    while marks:
        began = time.perf_counter()
        rows = A[torch.arange(position, position + SAE_BATCH) % len(A)]
        position += SAE_BATCH
        loss = (model(rows)[2] - rows).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        spent += time.perf_counter() - began
        while marks and spent >= marks[0]:
            model.eval()
            with torch.no_grad():
                rebuilt = torch.cat(
                    [model(part.to(options.device))[2].cpu() for part in held_out.split(1024)]
                )
            model.train()
            results[f"r2 after {marks.pop(0):g} s"] = r2(held_out, rebuilt)
    return results
