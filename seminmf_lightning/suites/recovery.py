"""Does training find features that are known, where others made the rows from them?

The run's recipe is trained on a planted problem, and scored against its truth beside atoms that no training
has touched and beside the true features themselves.

Legend:  Y (N, d) rows   Z (N, n) true codes   A (n, d) true features   U (N, k) codes   D (k, d) atoms
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core import recovery
from seminmf_lightning.core.checks import one_of, real_number, whole_number
from seminmf_lightning.core.discovery import available, name_of
from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.dictionary_file import load_dictionary
from seminmf_lightning.encoders import Encoder, FixedNonzeros, Penalised
from seminmf_lightning.estimator import SemiNMF
from seminmf_lightning.suites.base import Context, Line, Result, Suite, estimate
from seminmf_lightning.suites.nonzeros import least_size, with_nonzeros
from seminmf_lightning.suites.planted import Planted, Sample, Split
from seminmf_lightning.suites.probing.lines import Features
from seminmf_lightning.suites.probing.sae import sae_features

OVERRIDES = ("nonnegative", "solver", "encoder", "normalize")
SCORED_ROWS = 2500
"""Most rows of a kind that are scored: correlations need no more."""
TUNING_ROWS = 1024
SPARE = 2
"""Nonzeros per row, over those kept, of which a shared threshold keeps the largest."""
COLUMNS = {
    "mcc": "MCC of codes", "mcc_shifted": "the same, shifted", "atom_mcc": "MCC of atoms", "f1": "F1",
    "uniqueness": "unique", "explained_variance": "expl. var.", "l0": "l0", "seconds": "train s",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Recovery(Suite):
    """Train on planted rows, score on others of the same law and, where there are any, of a shifted one.

    All lines get codes from the trained recipe's encoder, brought to ``nonzeros`` per held-out row.
    """

    problem: str = "compositional"
    """A file in ``suites/planted``: compositional (arXiv 2603.28744) or hierarchical (arXiv 2602.14687)."""
    latents: int | None = None
    """True features; None: as many as the problem has by default (500, or 1,024 hierarchical ones)."""
    samples: int | None = None
    """Rows; half are for training.  None: the problem's default (5,000, or 20,000 hierarchical ones)."""
    fresh: int | None = None
    """Instead: this many fresh training rows."""
    nb_concepts: int | None = None
    """Atoms; None: as many as features, or a quarter of hierarchical ones."""
    nonzeros: float = 10
    """Nonzeros per row, in training and in scoring."""
    train_nonzeros: float | None = None
    """Nonzeros per row in training, if they differ."""
    train_penalty: float | None = None
    """Instead: the ``l1_penalty`` of training, in normalised units."""
    penalty: float | None = None
    """Score lasso codes at this penalty in data units, 0.1 as published, instead of at ``nonzeros``."""
    shared_threshold: bool = False
    """Score twice the nonzeros per row, of which those above one size for all rows are kept, so that rows
    have ``nonzeros`` on average, not each of them: what BatchTopK does."""
    sae: Sequence[str] = ()
    """Autoencoders trained on the same rows: safetensors files; ``SEED`` in a name stands for the seed."""
    epochs: int = 60
    """Most epochs of training."""
    seeds: int = 2
    """Problems and runs; standard errors are over them."""
    seed: int = 0
    """The first of these seeds."""
    nonnegative: str | None = "codes"
    """Signs of the recipe, those of the truth by default; None: the run's."""
    solver: Any = None
    """Instead of the run's."""
    encoder: Any = None
    """Instead of the run's."""
    normalize: str | None = None
    """Instead of the run's."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sae", [self.sae] if isinstance(self.sae, str) else list(self.sae))
        one_of("suite.recovery.problem", self.problem, tuple(available(Planted)))
        for name in ("latents", "samples", "fresh", "nb_concepts"):
            if getattr(self, name) is not None:
                whole_number(f"suite.recovery.{name}", getattr(self, name), 2)
        for name, least in (("epochs", 1), ("seeds", 1), ("seed", 0)):
            whole_number(f"suite.recovery.{name}", getattr(self, name), least)
        for name in ("nonzeros", "train_nonzeros", "train_penalty", "penalty"):
            if getattr(self, name) is not None:
                real_number(f"suite.recovery.{name}", getattr(self, name), 0, exclusive=True)

    def run(self, context: Context) -> Result:
        settings = load_dictionary(context.run).settings
        scores: dict[str, list[dict[str, float]]] = {}
        for number in range(self.seeds):
            context.show("seeds", number, self.seeds)
            problem = self.planted(self.seed + number)
            split = problem.split()
            if self.fresh is not None:
                train = np.concatenate(
                    [block.rows for block in problem.stream(self.fresh, self.seed + number)]
                )
            else:
                train = split.train.rows
            rows = torch.from_numpy(train)
            recipe = self.recipe(settings, problem, self.seed + number)
            others = self._autoencoders(rows.shape[1], self.seed + number, context.device)
            began, model = time.process_time(), SemiNMF(**recipe, device=context.device)
            model.fit(rows, max_iter=self.epochs)
            seconds = time.process_time() - began
            features = torch.from_numpy(problem.features).to(context.device)
            for name, D in self._lines(model, features, split, rows).items():
                values = _scores(D, self._line(name, D, model, split), features, split)
                values |= {"seconds": seconds} if name == "trained" else {}
                scores.setdefault(name, []).append(values)
            for line in others:
                assert line.decode is not None
                codes = torch.cat([torch.zeros(1, line.width), torch.eye(line.width)]).to(features)
                D = line.decode(codes)
                scores.setdefault(line.name, []).append(_scores(D[1:] - D[:1], line, features, split))
        context.show("seeds", self.seeds, self.seeds)
        return self._result(scores, model)

    def planted(self, seed: int) -> Planted:
        """Return the problem of a seed."""
        sizes = {"latents": self.latents, "samples": self.samples}
        given = {name: size for name, size in sizes.items() if size is not None}
        return available(Planted)[self.problem](seed=seed, **given)  # type: ignore[call-arg]

    def recipe(self, settings: Mapping[str, Any], problem: Planted, seed: int) -> dict[str, Any]:
        """Return the run's settings, as overridden, with the sizes and the sparsity of the problem."""
        given = {name: getattr(self, name) for name in OVERRIDES if getattr(self, name) is not None}
        recipe = {**settings, **given, "seed": seed}
        recipe["nb_concepts"] = self.nb_concepts or len(problem.features) // problem.features_per_atom
        spec = recipe["encoder"]
        spec = {"name": spec} if isinstance(spec, str) else dict(spec)
        kind, target = available(Encoder).get(spec["name"]), self.train_nonzeros or self.nonzeros
        for name in ("l1_penalty", "nonnegative"):  # those of the run; the sparsity and the signs decide
            spec.pop(name, None)
        penalised = kind is None or issubclass(kind, Penalised)  # `auto` is no kind
        if kind is not None and issubclass(kind, FixedNonzeros):
            spec["nonzeros"] = round(target)
        if self.penalty is not None and not penalised:
            raise ValueError(
                f"suite.recovery.penalty={self.penalty:g}, but encoder={spec['name']} takes no penalty: "
                "leave it out, or give suite.recovery.encoder=lasso"
            )
        sparsity: dict[str, Any] = {"l1_penalty": self.train_penalty or 0.0, "target_l0": None}
        if penalised and self.train_penalty is None:
            sparsity["target_l0"] = target
        return recipe | {"encoder": spec} | sparsity

    def _lines(self, model: SemiNMF, features: Tensor, split: Split, rows: Tensor) -> dict[str, Tensor]:
        """Return unit atoms by the name of their line."""
        generator = torch.Generator().manual_seed(model.recipe.seed)
        signs, learned = model.recipe.constraint, unit_atoms(model.get_dictionary())
        k, d = learned.shape
        chosen = torch.randperm(len(rows), generator=generator)[:k]
        energy = torch.from_numpy(split.train.codes.power(2).sum(axis=0))
        return {
            "trained": learned,
            "null: random atoms": unit_atoms(signs.random_atoms(k, d, generator)).to(learned),
            "null: data rows": unit_atoms(signs.directions(model.normalizer.apply(rows[chosen].to(learned)))),
            "oracle: true features": features[energy.topk(min(k, len(energy))).indices],
        }

    def _autoencoders(self, width: int, seed: int, device: torch.device) -> list[Features]:
        """Return the lines of the autoencoders of a seed, called as their files without the seed."""
        lines = [sae_features(path.replace("SEED", str(seed)), width, None, device) for path in self.sae]
        return [
            replace(line, name=f"SAE {Path(path).stem}") for path, line in zip(self.sae, lines, strict=True)
        ]

    def _line(self, name: str, D: Tensor, model: SemiNMF, split: Split) -> Features:
        """Return the line of a dictionary with the codes that are scored."""
        tuning = model.normalizer.apply(torch.from_numpy(split.held_out.rows[:TUNING_ROWS]).to(D))
        if self.penalty is None:
            target = self.nonzeros * (SPARE if self.shared_threshold else 1)
            encoder = with_nonzeros(model.encoder, D, tuning, target)
        else:
            assert isinstance(model.encoder, Penalised)
            encoder = model.encoder.with_penalty(self.penalty / model.normalizer.scale)
        encode = encoder.precise(D)
        least = least_size(encode(tuning), self.nonzeros) if self.shared_threshold else 0.0

        def codes(rows: Tensor) -> Tensor:
            Z = encode(model.normalizer.apply(rows))
            return torch.where(Z.abs() >= least, Z, 0.0)

        return Features(name, len(D), codes, lambda Z: model.normalizer.undo(Z @ D))

    def _result(self, scores: Mapping[str, list[dict[str, float]]], model: SemiNMF) -> Result:
        lines = [
            Line(name, {key: estimate(one[key] for one in each) for key in each[0]})
            for name, each in scores.items()
        ]
        shown = {
            key: heading for key, heading in COLUMNS.items() if any(key in line.values for line in lines)
        }
        solver, encoder = name_of(model.recipe.solver), name_of(model.recipe.encoder)
        sparsity = (
            f"{self.nonzeros:g} nonzeros per held-out row" if self.penalty is None
            else f"a penalty of {self.penalty:g}"
        )  # fmt: skip
        return Result(
            title=f"recovery, {self.problem}: {model.recipe.nb_concepts} atoms, {solver}, {encoder}",
            lines=lines, columns=shown,
            plotted=tuple(key for key in ("mcc", "mcc_shifted", "f1", "atom_mcc") if key in shown),
            notes=[
                f"dictionaries have codes of encoder={encoder} at {sparsity}"
                + (f" on average, of {SPARE} times as many" if self.shared_threshold else "")
                + (f"; standard errors over {self.seeds} seeds" if self.seeds > 1 else ""),
                "MCC of codes: mean |correlation| of matched true and learned codes; F1: atoms as detectors "
                "of their nearest features; unique: different nearest features per atom; seconds: of the "
                "processor",
            ],
            details={"recipe": model.recipe.plain()},
        )  # fmt: skip


def _scores(D: Tensor, line: Features, features: Tensor, split: Split) -> dict[str, float]:
    """Return the scores of atoms, and of their codes on the first rows of each kind."""

    def codes(sample: Sample) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.from_numpy(sample.rows[:SCORED_ROWS]).to(D)
        return rows, torch.from_numpy(sample.codes[:SCORED_ROWS].toarray()), line.codes(rows)

    assert line.decode is not None
    Y, Z, U = codes(split.held_out)
    values = {}
    if split.shifted is not None:
        values["mcc"] = recovery.code_mcc(Z, U)
        values["mcc_shifted"] = recovery.code_mcc(*codes(split.shifted)[1:], as_many=True)
    return values | {
        "atom_mcc": recovery.atom_mcc(features, D),
        "f1": recovery.detector_f1(Z, U.cpu(), recovery.nearest_features(features, D).cpu()),
        "uniqueness": recovery.uniqueness(features, D),
        "explained_variance": recovery.explained_variance(Y, line.decode(U)),
        "l0": float((U != 0).sum()) / len(U),
    }
