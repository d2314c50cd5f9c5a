"""Check the output of every method before its time counts: empty or wrong codes are fast to compute.

Legend:  A (n, d)   Z (n, k)   D (k, d)
"""

from __future__ import annotations

import torch
from torch import Tensor

WRONG = "wrong output"
SLACK = 1e-3
"""Relative excess of a norm over its bound that float32 explains."""
FEWEST, MOST = 0.5, 1.5
"""Mean nonzeros per row, over the number asked for; a threshold over a batch only holds it on average."""


class WrongOutputError(ValueError):
    """What a method returned is not what it was asked for."""


def check_atoms(D: Tensor, *, longest: float | None = None, nonnegative: bool = False) -> Tensor:
    """Return D (k, d), or raise a WrongOutputError."""
    norms = D.norm(dim=1)
    if not D.isfinite().all():
        raise WrongOutputError("atoms hold NaN or Inf")
    if not norms.any():
        raise WrongOutputError("all atoms are zero")
    if longest is not None and norms.max() > longest * (1 + SLACK):
        raise WrongOutputError(f"an atom of norm {float(norms.max()):.4g}, at most {longest:g} was asked for")
    if nonnegative and (D < 0).any():
        raise WrongOutputError("atoms are negative")
    return D


def check_codes(
    A: Tensor, Z: Tensor, D: Tensor, offset: Tensor | float = 0.0, *, nonzeros: float | None = None,
    nonnegative: bool = False,
) -> float:  # fmt: skip
    """Return R2 of ``Z D + offset`` against rows A, or raise a WrongOutputError.

    >>> A = torch.eye(2)
    >>> check_codes(A, A, A), check_codes(A, A, A, nonzeros=1)
    (1.0, 1.0)
    >>> check_codes(A, 0 * A, A)
    Traceback (most recent call last):
    benchmarks.checks.WrongOutputError: all codes are zero
    """
    if Z.shape != (len(A), len(D)) or D.shape[1] != A.shape[1]:
        raise WrongOutputError(f"codes {tuple(Z.shape)} and atoms {tuple(D.shape)} for rows {tuple(A.shape)}")
    if not Z.isfinite().all():
        raise WrongOutputError("codes hold NaN or Inf")
    if not Z.any():
        raise WrongOutputError("all codes are zero")
    if nonnegative and (Z < 0).any():
        raise WrongOutputError("codes are negative")
    per_row = float((Z != 0).sum(dim=1, dtype=torch.float64).mean())
    if nonzeros is not None and not FEWEST * nonzeros <= per_row <= MOST * nonzeros:
        raise WrongOutputError(f"{per_row:.3g} nonzeros per row, {nonzeros:g} were asked for")
    error = squared_error(A - offset, Z, D)
    if not error < float((A - offset).square().sum(dtype=torch.float64)):
        raise WrongOutputError("the reconstruction is no better than that of zero codes")
    return 1 - error / float((A - A.mean(dim=0)).square().sum(dtype=torch.float64))


def squared_error(A: Tensor, Z: Tensor, D: Tensor) -> float:
    """Return ``||A - Z D||_F^2``, a block of rows at a time."""
    parts = zip(A.split(8192), Z.split(8192), strict=True)
    return sum(float((rows - codes @ D).square().sum(dtype=torch.float64)) for rows, codes in parts)
