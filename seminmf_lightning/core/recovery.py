"""Compare learned codes and atoms with the features and codes that made the rows.

Legend:  Y (N, d) rows   Z (N, n) true codes   A (n, d) true features
         U (N, k) learned codes   D (k, d) atoms
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from seminmf_lightning.core.similarity import cosines, match_atoms

CONSTANT = 1e-8
"""Variance at or below which a code counts as constant."""
PAD_SEED = 42
"""Seed of the published padding."""


def code_mcc(Z: Tensor, U: Tensor, *, as_many: bool = False) -> float:
    """Return the mean absolute Pearson correlation of true codes and the learned ones matched with them.

    ``max over one-to-one p of mean_i |corr(Z_i, U_p(i))|`` over the latents that vary in Z.  The narrower of
    the two is first widened by columns of Gaussian noise, whose pairs count in the mean: spare codes cost.
    ``as_many`` keeps the columns of U with the largest variance, as many as latents vary; published so for
    rows in which only some latents appear (arXiv 2603.28744).  A constant code correlates 0.

    Raises:
        ValueError: the two have different rows, or no latent varies.

    >>> Z = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    >>> round(code_mcc(Z, 5 * Z.flip(1)), 6)
    1.0
    """
    true, learned = (X.detach().cpu().double().numpy() for X in (Z, U))
    if len(true) != len(learned):
        raise ValueError(
            f"true codes have {len(true)} rows, learned codes {len(learned)}; give the same rows"
        )
    true = true[:, true.var(axis=0) > CONSTANT]
    if not true.shape[1]:
        raise ValueError("no true code varies over these rows; give more rows")
    if as_many:
        learned = learned[:, np.argsort(-learned.var(axis=0), kind="stable")[: true.shape[1]]]
    noise, missing = np.random.RandomState(PAD_SEED), true.shape[1] - learned.shape[1]
    pad = noise.normal(0, 1, (len(true), abs(missing)))
    if missing > 0:
        learned = np.hstack([learned, pad])
    elif missing < 0:
        true = np.hstack([true, pad])
    correlation = np.abs(_standardised(true).T @ _standardised(learned))
    return float(correlation[linear_sum_assignment(-correlation)].mean())


def _standardised(X: np.ndarray) -> np.ndarray:
    """Return columns of mean 0 and length 1, or 0 where they are constant."""
    X = X - X.mean(axis=0)
    length = np.linalg.norm(X, axis=0)
    return np.where(length < CONSTANT, 0, X / np.maximum(length, CONSTANT))


def atom_mcc(A: Tensor, D: Tensor) -> float:
    """Return the mean absolute cosine of one-to-one pairs of features and atoms.

    Every one of the fewer is matched (O'Neill et al., arXiv 2411.13117, as SynthSAEBench uses it).

    >>> atom_mcc(torch.eye(4), -3 * torch.eye(4)[:2])
    1.0
    """
    return float(match_atoms(A, D, sign_is_free=True).cosine.mean())


def nearest_features(A: Tensor, D: Tensor) -> Tensor:
    """Return for each atom (k,) the feature of the largest absolute cosine; several may share one."""
    return cosines(D, A).abs().argmax(dim=1)


def uniqueness(A: Tensor, D: Tensor) -> float:
    """Return the number of different nearest features over the number of atoms (SynthSAEBench).

    >>> uniqueness(torch.eye(3), torch.eye(3)[[0, 0, 1, 2]])
    0.75
    """
    return len(torch.unique(nearest_features(A, D))) / len(D)


def detector_f1(Z: Tensor, U: Tensor, nearest: Tensor) -> float:
    """Return the mean F1 of the atoms as detectors of their nearest features, 0 for one that never fires.

    Atom j predicts that feature ``nearest[j]`` fires where ``U_j != 0``:
    ``F1_j = 2 |both fire| / (|atom fires| + |feature fires|)``.  Nearest by cosine, as published
    (SynthSAEBench, arXiv 2602.14687); two atoms may detect one feature, which :func:`uniqueness` counts.

    >>> fires = torch.tensor([[1.0], [1.0], [0.0], [0.0]])
    >>> detector_f1(fires, torch.tensor([[2.0], [0.0], [0.0], [0.0]]), torch.tensor([0])) == 2 / 3
    True
    """
    atom, feature = U != 0, (Z != 0)[:, nearest]
    both = (atom & feature).sum(dim=0).double()
    either = (atom.sum(dim=0) + feature.sum(dim=0)).double()
    return float((2 * both / either.clamp(min=1)).mean())


def explained_variance(Y: Tensor, reconstruction: Tensor) -> float:
    """Return ``1 - ||Y - reconstruction||_F^2 / ||Y - mean||_F^2``.

    >>> explained_variance(torch.eye(2), torch.full((2, 2), 0.5))
    0.0
    """
    Y = Y.double()
    total = (Y - Y.mean(dim=0)).square().sum()
    return float(1 - (Y - reconstruction.double()).square().sum() / total)
