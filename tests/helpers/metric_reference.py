"""Definitions of the metrics in float64, by two passes over the rows, and small problems to try them on."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.metrics import Fitted, ReconstructionMetrics, dictionary_metrics


def reference(
    A: np.ndarray, A_hat: np.ndarray, Z: np.ndarray, D: np.ndarray
) -> dict[str, float | list[float]]:
    """Return the value of each metric by its definition; None where the reference has no digits left."""
    A, A_hat, Z, D = (np.asarray(x, dtype=np.float64) for x in (A, A_hat, Z, D))
    n, k = Z.shape
    residual, total = np.square(A - A_hat).sum(), np.square(A - A.mean(axis=0)).sum()
    hoyer = [
        (math.sqrt(k) - np.abs(z).sum() / math.sqrt(np.square(z).sum())) / (math.sqrt(k) - 1)
        for z in Z
        if k > 1 and z.any()
    ]
    parts = np.array([np.square(np.outer(Z[:, j], D[j])).sum() for j in range(k)])
    found = []
    for j in range(k):
        for other in range(j):
            x, y = Z[:, j] - Z[:, j].mean(), Z[:, other] - Z[:, other].mean()
            if np.ptp(Z[:, j]) > 0 and np.ptp(Z[:, other]) > 0:
                found.append(abs((x * y).sum()) / math.sqrt(np.square(x).sum() * np.square(y).sum()))
    bound = np.square(np.linalg.svd(A, compute_uv=False)[k:]).sum()
    best = np.square(A - A @ np.linalg.pinv(D) @ D).sum()
    return {
        "reconstruction_loss": residual / A.size,
        "r2": 1 - residual / total if total > 0 else float(residual == 0),
        "relative_l2": math.sqrt(residual / np.square(A).sum()),
        "l0": np.count_nonzero(Z) / n,
        "dead_fraction": np.mean([not Z[:, j].any() for j in range(k)]),
        "hoyer": np.mean(hoyer) if hoyer else math.nan,
        "density": [np.count_nonzero(Z[:, j]) / n for j in range(k)],
        "energy": (parts / parts.sum() if parts.sum() > 0 else parts).tolist(),
        "code_correlation_max": max(found, default=math.nan),
        "code_correlation_mean": np.mean(found) if found else math.nan,
        "optimality_gap": best / bound - 1 if bound > 1e-7 * np.square(A).sum() else None,
    }


def measured(
    A: Tensor, A_hat: Tensor, Z: Tensor, D: Tensor, sizes: list[int]
) -> dict[str, float | list[float]]:
    """Return the streamed values, from batches of these sizes and then the rest."""
    of_run = ReconstructionMetrics(*D.shape, l1_penalty=0.0)
    metrics = dictionary_metrics(Fitted(D, least_squares=True))
    sizes = [*sizes, len(A) - sum(sizes)]
    for rows, reconstructed, codes in zip(A.split(sizes), A_hat.split(sizes), Z.split(sizes), strict=True):
        of_run.update(rows, reconstructed, codes)
        metrics.update(A=rows, A_hat=reconstructed, Z=codes)
    return of_run.compute() | metrics.compute()


def problem(rows: int, concepts: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A (n, 9), sparse signed Z (n, k), nonnegative D (k, 9)."""
    generator = torch.Generator().manual_seed(seed)
    Z = torch.randn(rows, concepts, generator=generator) * (
        torch.rand(rows, concepts, generator=generator) < 0.4
    )
    D = torch.rand(concepts, 9, generator=generator)
    return Z @ D + 0.3 * torch.randn(rows, 9, generator=generator), Z, D
