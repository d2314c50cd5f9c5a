"""Does training find features that are known, where others made the rows from them?

The run's recipe is trained on a planted problem, and scored against its truth beside atoms that no training
has touched and beside the true features themselves.

Legend:  Y (N, d) rows   Z (N, n) true codes   A (n, d) true features   U (N, k) codes   D (k, d) atoms
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
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
from seminmf_lightning.suites.nonzeros import with_nonzeros
from seminmf_lightning.suites.planted import Planted, Sample, Split

OVERRIDES = ("nonnegative", "solver", "encoder", "normalize")
SCORED_ROWS = 2500
"""Most rows of a kind that are scored: correlations need no more."""
TUNING_ROWS = 1024
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
            began, model = time.perf_counter(), SemiNMF(**recipe, device=context.device)
            model.fit(rows, max_iter=self.epochs)
            seconds = time.perf_counter() - began
            features = torch.from_numpy(problem.features).to(context.device)
            for name, D in self._lines(model, features, split, rows).items():
                values = self._scores(D, model, features, split)
                values |= {"seconds": seconds} if name == "trained" else {}
                scores.setdefault(name, []).append(values)
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

    def _scores(self, D: Tensor, model: SemiNMF, features: Tensor, split: Split) -> dict[str, float]:
        encode = self._scoring_encoder(D, model, split).precise(D)

        def codes(sample: Sample) -> tuple[Tensor, Tensor, Tensor]:
            """Return rows, true codes and codes of the first rows."""
            rows = torch.from_numpy(sample.rows[:SCORED_ROWS]).to(D)
            return (
                rows,
                torch.from_numpy(sample.codes[:SCORED_ROWS].toarray()),
                encode(model.normalizer.apply(rows)),
            )

        Y, Z, U = codes(split.held_out)
        values = {}
        if split.shifted is not None:
            values["mcc"] = recovery.code_mcc(Z, U)
            values["mcc_shifted"] = recovery.code_mcc(*codes(split.shifted)[1:], as_many=True)
        return values | {
            "atom_mcc": recovery.atom_mcc(features, D),
            "f1": recovery.detector_f1(Z, U.cpu(), recovery.nearest_features(features, D).cpu()),
            "uniqueness": recovery.uniqueness(features, D),
            "explained_variance": recovery.explained_variance(Y, model.normalizer.undo(U @ D)),
            "l0": float((U != 0).sum()) / len(U),
        }

    def _scoring_encoder(self, D: Tensor, model: SemiNMF, split: Split) -> Encoder:
        if self.penalty is None:
            tuning = torch.from_numpy(split.held_out.rows[:TUNING_ROWS]).to(D)
            return with_nonzeros(model.encoder, D, model.normalizer.apply(tuning), self.nonzeros)
        assert isinstance(model.encoder, Penalised)
        return model.encoder.with_penalty(self.penalty / model.normalizer.scale)

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
                f"all lines have codes of encoder={encoder} at {sparsity}"
                + (f"; standard errors over {self.seeds} seeds" if self.seeds > 1 else ""),
                "MCC of codes: mean |correlation| of matched true and learned codes; F1: atoms as detectors "
                "of their nearest features; unique: different nearest features per atom",
            ],
            details={"recipe": model.recipe.plain()},
        )  # fmt: skip
