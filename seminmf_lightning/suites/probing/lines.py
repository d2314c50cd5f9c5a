"""The lines of the table: a run's dictionary under each encoder, and what a sceptic puts beside it.

Legend:  A (n, d) raw activations   Z (n, k) codes   D (k, d) dictionary   U (k, d) unit atoms
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from seminmf_lightning.core.constraints import Constraint
from seminmf_lightning.core.discovery import available, build, name_of
from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.dictionary_file import SavedDictionary
from seminmf_lightning.encoders import Effort, Encoder, Penalised
from seminmf_lightning.learners import Recipe
from seminmf_lightning.learners.penalty import INITIAL_PENALTY
from seminmf_lightning.suites.nonzeros import with_nonzeros

DENSE = "dense probe"
"""The line whose probe takes all features, not the best few."""
DENSE_TARGET = 16
"""Nonzeros per row of the sparse encoders beside a run whose own codes are dense."""


@dataclass(frozen=True)
class Features:
    """One line: a map from raw activations (n, d) to features (n, m)."""

    name: str
    width: int
    codes: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor] | None = None
    """Codes to raw activations; None where nothing is reconstructed."""
    signed: bool = False
    """Codes are free in sign, so that one concept may stand for two."""


def of_dictionary(
    name: str, D: Tensor, normalizer: Normalizer, encoder: Encoder, signs: Constraint, effort: Effort = ()
) -> Features:
    """Return the line of a dictionary under an encoder."""
    encode = encoder.precise(D, effort)
    return Features(
        name, len(D), lambda A: encode(normalizer.apply(A)), lambda Z: normalizer.undo(Z @ D.to(Z)),
        signed=not signs.nonnegative_codes,
    )  # fmt: skip


def of_run(name: str, saved: SavedDictionary, device: torch.device) -> Features:
    """Return the line of a run with its own encoder."""
    encoder = Recipe(**saved.settings).encoder
    D, normalizer = saved.D.to(device), saved.normalizer.to(device)
    name = f"{name}, {name_of(encoder)}"
    return of_dictionary(name, D, normalizer, encoder, saved.constraint, saved.effort)


def beside(
    saved: SavedDictionary, sample: Tensor, texts: Tensor, nonzeros: int | None, seed: int
) -> Iterator[Features]:
    """Yield the run's dictionary under every other sparse encoder, and the baselines.

    Encoders are brought to ``nonzeros`` per row on rows of the ``texts`` that are probed, by default as
    many as the run's own codes have there, so that lines differ in their atoms or their encoder alone.
    Baselines are made from ``sample``, rows of the run's data.

    Raises:
        ValueError: more nonzeros than there are concepts or features.
    """
    if nonzeros is not None and nonzeros > min(saved.D.shape):
        k, d = saved.D.shape
        raise ValueError(f"nonzeros={nonzeros} is more than min(concepts={k}, features={d}); lower it")
    signs, own = saved.constraint, Recipe(**saved.settings).encoder
    D, normalizer = saved.D.to(sample.device), saved.normalizer.to(sample.device)
    rows, few = normalizer.apply(sample), normalizer.apply(texts)
    target = float(nonzeros or _nonzeros(own, D, few, saved.effort) or min(DENSE_TARGET, *D.shape))
    at = "" if nonzeros is None else f" at {nonzeros}"

    for name, kind in available(Encoder).items():
        suits = kind.sparse and (kind.supports_nonnegative or not own.nonnegative)
        if suits and (name != name_of(own) or nonzeros is not None):
            encoder = with_nonzeros(_made(name, kind, own.nonnegative), D, few, target)
            yield of_dictionary(f"run, {name}{at}", D, normalizer, encoder, signs)

    generator = torch.Generator().manual_seed(seed)
    atoms = signs.random_atoms(len(D), D.shape[1], generator).to(rows)
    directions = signs.directions(rows)
    directions = directions[directions.norm(dim=1) > 0]
    chosen = torch.randperm(len(directions), generator=generator)[: len(D)]
    for name, U in (("random atoms", unit_atoms(atoms)), ("data rows", unit_atoms(directions[chosen]))):
        encoder = with_nonzeros(own, U, few, target) if own.sparse else own
        yield of_dictionary(f"{name}, {name_of(encoder)}{at}", U, normalizer, encoder, signs)

    mean = sample.double().mean(dim=0)
    covariance = (sample.double() - mean).T @ (sample.double() - mean)
    V = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, : len(D)].float()
    mean = mean.float()
    width = D.shape[1]
    yield Features("PCA", V.shape[1], lambda A: (A - mean) @ V, lambda Z: Z @ V.T + mean)
    yield Features("neurons", width, lambda A: A)
    yield Features(DENSE, width, lambda A: A)


def _made(name: str, kind: type[Encoder], nonnegative: bool) -> Encoder:
    spec: dict[str, object] = {"name": name, "nonnegative": nonnegative}
    if issubclass(kind, Penalised):
        spec["l1_penalty"] = INITIAL_PENALTY
    encoder: Encoder = build(Encoder, spec)
    return encoder


def _nonzeros(encoder: Encoder, D: Tensor, rows: Tensor, effort: Effort = ()) -> float:
    """Return the mean nonzeros per row; 0 for an encoder whose codes are dense."""
    if not encoder.sparse:
        return 0.0
    return float((encoder.precise(D, effort)(rows) != 0).sum(dim=1).float().mean())
