"""Codes first, then the dictionary from two sums over them.

Mairal, Bach, Ponce & Sapiro, "Online learning for matrix factorization and sparse coding", JMLR 11, 2010,
Algorithm 1, with the forgetting of section 3.4.3.  Deviations: sums are weighted by rows, not batches, so
that the batch size does not change the optimum; signs are constrained; without a bound atoms are kept at
length 1, by scaling the sums with them; dead atoms are replaced.

Legend:  A (n, d)   Z (n, k)   D (k, d)   S = Z^T Z (k, k)   P = Z^T A (k, d)
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from seminmf_lightning.core.linalg import into_unit_ball, unit_atoms
from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.core.sums import CodeStatistics, CodeSums
from seminmf_lightning.encoders import Encode, Encoder, Penalised
from seminmf_lightning.learners.base import Learner
from seminmf_lightning.learners.penalty import PenaltyTuner

FORGETTING = 5.0
"""Exponent r of the weight (1 - n / N)^r that old sums get when n rows make N in all (Mairal, section 3.4.3).
Of 2, 5, 10 and 30, on MiniLM, 5 and 10 had the lowest held-out objectives after an epoch."""
DENSE_FORGETTING, DENSE_STEPS = 20.0, 3
"""The same, and solver steps per update, where rows have codes for most atoms and sums are less noisy.  On
20,000 rows and 64 nonnegative factors, 5 and one step need 10 epochs for the error of these after 2."""
TUNING_ROWS, CALIBRATION_ROWS = 2048, 128
"""Rows of the sample on which a penalty is tuned, where none are held out, and an encoder's work per row."""
CALIBRATE_EVERY = 64
"""Updates of D between calibrations, apart from two early ones."""
DEAD_ROWS = 10_000
"""An atom is dead after this many consecutive rows with a code of exactly zero."""
ROUGH_ITERATIONS = 30
"""Encoder iterations when nonzeros are counted with the initial dictionary, which soon changes."""


class OnlineLearner(Learner):
    """Sparse (or least-squares) codes for each batch, then solver steps on (S, P)."""

    order_matters, single_epoch = True, False
    dictionary_dtype: ClassVar[torch.dtype] = torch.float32
    sums: ClassVar[type[CodeSums]] = CodeStatistics
    """What is added up over rows."""
    sample_rows: ClassVar[int] = 2048
    """Rows of the sample from which dead atoms get a new direction."""

    update_rows: int | None = 512
    pending: Any
    total: Any

    def reset(self) -> None:
        super().reset()
        recipe, features = self.recipe, self.features
        self.pending = self.sums.empty(recipe.nb_concepts, features)
        self.total = self.sums.empty(recipe.nb_concepts, features)
        self.replaced = 0
        self.tuner = None if recipe.target_l0 is None else PenaltyTuner(recipe.target_l0)
        self._encode: Encode | None = None
        self._updates, self._calibrated_at = 0, -1
        self._silent = torch.zeros(recipe.nb_concepts, dtype=torch.float64)  # rows since each atom's last use
        self._error, self._unexplained = float("nan"), 0.0
        self._epoch_rows, self._epoch_objective, self._epoch_nonzeros = 0.0, 0.0, 0.0
        self._previous_objective: float | None = None
        self._converged = False

    @property
    def penalty(self) -> float:
        return self.recipe.l1_penalty if self.tuner is None else self.tuner.penalty

    @property
    def recent_l0(self) -> float | None:
        return None if self.tuner is None else self.tuner.recent

    @property
    def encoder(self) -> Encoder:
        return self._encoder(self.penalty)

    @property
    def training_penalty(self) -> float:
        """The penalty of the codes from which the dictionary learns."""
        return self.penalty

    def _encoder(self, penalty: float) -> Encoder:
        encoder: Encoder = self.recipe.encoder
        given = penalty == self.recipe.l1_penalty or not isinstance(encoder, Penalised)
        return encoder if given else encoder.with_penalty(penalty)  # type: ignore[attr-defined]

    def prepare(self, D: Tensor) -> Tensor:
        """Project the atoms and tune the penalty.

        Raises:
            ValueError: the penalty is so large that every code will be zero.
        """
        largest = float(self.sample.norm(dim=1).max()) if len(self.sample) else 0.0
        if 0 < largest <= self.recipe.l1_penalty:
            raise ValueError(
                f"l1_penalty={self.recipe.l1_penalty:g} makes every code zero: it must be less than the "
                f"largest row norm, {largest:.3g} in normalised units (rows have mean norm 1)"
            )
        # Rounding to float32 may have left a norm above 1.
        D = self.recipe.constraint.project_atoms(D, self.recipe.bounded)
        self._tune(D, roughly=True)
        return D

    def attach_sample(
        self, sample: Tensor, normalizer: Normalizer | None = None, *, held_out: Tensor | None = None,
        rows: int | None = None, epochs: int | None = None,
    ) -> None:  # fmt: skip
        self.recipe.constraint.check_rows(sample)
        super().attach_sample(sample, normalizer)
        tuning = sample[:TUNING_ROWS] if held_out is None else held_out
        normalised = self.normalizer.apply(sample[: self.sample_rows]).double()
        self.sample = normalised.to(self.dictionary_dtype)
        if len(self.sample):
            squares = float(normalised.square().sum())
            variation = float((normalised - normalised.mean(dim=0)).square().sum())
            self.warn_of_offset(normalised, variation / squares if squares else 1.0)
        self.tuning = self.normalizer.apply(tuning).to(self.dictionary_dtype)  # rows to count nonzeros of

    def to_(self, device: torch.device) -> None:
        super().to_(device)
        self._silent = self._silent.to(device)

    def observe(self, A: Tensor, D: Tensor) -> None:
        rows = self.checked(A, D)
        self.pending.add_rows_(rows, self.encode_for_training(rows, D), D)

    def checked(self, A: Tensor, D: Tensor) -> Tensor:
        """Return raw rows A normalised; raise a FloatingPointError if one is not finite."""
        self.recipe.constraint.check_rows(A)
        A = self.normalizer.apply(A).to(D.dtype)
        if not A.sum(dim=1).isfinite().all():  # an encoder may loop or divide by zero on such rows
            raise FloatingPointError("rows are not finite")
        return A

    def encode_for_training(self, A: Tensor, D: Tensor) -> Tensor:
        """Return codes of normalised rows at the :attr:`training_penalty`; D is that of the last update."""
        if self._encode is None:
            self._encode = self._training_encode(D)
        return self._encode(A)

    def absorb(self) -> None:
        rows = float(self.pending.rows)
        if not rows:
            return
        self.rows_seen += self._rows_offered()
        forgetting = FORGETTING if self.recipe.encoder.sparse else DENSE_FORGETTING
        self.total.add_(self.pending, keep=(1 - rows / self.rows_seen) ** forgetting)
        squared_error, nonzeros = float(self.pending.squared_error), float(self.pending.fired.sum())
        objective = 0.5 * squared_error + self.training_penalty * float(self.pending.l1_norm)
        zero_objective = 0.5 * float(self.pending.squares)
        self._error = squared_error / rows
        self._unexplained = objective / zero_objective if zero_objective else 0.0
        self._epoch_rows += rows
        self._epoch_objective += objective
        self._epoch_nonzeros += nonzeros
        self._follow(nonzeros / rows)
        self._silent = torch.where(self.pending.fired > 0, 0.0, self._silent + rows)
        self.pending.zero_()

    def _rows_offered(self) -> int:
        """Return the rows since the last :meth:`absorb`, of all processes."""
        return int(self.pending.rows)

    def _follow(self, nonzeros: float) -> None:
        """Adjust the penalty to the mean nonzeros per row of an update, if they have a target."""
        if self.tuner is not None:
            self.tuner.follow(nonzeros)

    def improve(self, D: Tensor) -> Tensor:
        rows = float(self.total.rows)
        if not rows:
            return D
        S, P = ((sums / rows).to(D.dtype) for sums in (self.total.gram, self.total.cross))
        for _ in range(1 if self.recipe.encoder.sparse else DENSE_STEPS):
            D = self.solver_step(D, S, P)
        if not self.recipe.bounded:
            D = self._with_unit_atoms(D)
        self._updates += 1
        self._encode = None
        return self._replace_dead(D, (self._silent >= DEAD_ROWS).nonzero()[:, 0])

    def _with_unit_atoms(self, D: Tensor) -> Tensor:
        """Scale atoms to length 1 and the sums with them, as if codes had been scaled inversely."""
        lengths = D.double().norm(dim=1)
        lengths = torch.where(lengths > 0, lengths, 1.0)
        self.total.gram *= lengths[:, None] * lengths
        self.total.cross *= lengths[:, None]
        return (D / lengths[:, None]).to(D)

    def mean_squared_error(self, D: Tensor) -> float:
        """Error of the rows absorbed last, with the dictionary that their codes were computed with."""
        return self._error / self.features * self.normalizer.scale**2

    def unexplained(self, D: Tensor) -> float:
        """Share for the rows absorbed last, as in :meth:`mean_squared_error`."""
        return self._unexplained

    def converged(self) -> bool:
        return self._converged

    def end_epoch(self, D: Tensor) -> Tensor:
        if self._epoch_rows:
            objective, previous = self._epoch_objective / self._epoch_rows, self._previous_objective
            self._converged = previous is not None and previous - objective <= self.recipe.tol * previous
            if self.tuner is not None:
                self._tune(D)
                self._converged &= self.tuner.usable
            self._previous_objective = objective
            if not self._epoch_nonzeros:
                warnings.warn(
                    f"every code of this epoch was zero: l1_penalty={self.penalty:g} is above every "
                    "correlation of a row with an atom; lower it",
                    stacklevel=2,
                )
            self._epoch_rows, self._epoch_objective, self._epoch_nonzeros = 0.0, 0.0, 0.0
        return D

    def _tune(self, D: Tensor, *, roughly: bool = False) -> None:
        """Set the penalty so that the codes of the tuning rows have the target number of nonzeros."""
        if self.tuner is None or not isinstance(self.recipe.encoder, Penalised):
            return
        if not self.effort:
            self.effort = self.encoder.calibrate(D, self.sample[:CALIBRATION_ROWS])
        encoder = self.recipe.encoder.with_limits(ROUGH_ITERATIONS if roughly else None, None)

        def count(penalty: float) -> float:
            assert isinstance(encoder, Penalised)
            Z = encoder.with_penalty(penalty).precise(D, self.effort)(self.tuning)
            return float((Z != 0).sum()) / max(1, len(Z))

        self.tuner.search(count)
        self._encode = None

    def _training_encode(self, D: Tensor) -> Encode:
        """Return the encoding for this dictionary, calibrated again if due."""
        encoder = self._encoder(self.training_penalty)
        due = not self.effort or self._updates in (8, 32) or self._updates % CALIBRATE_EVERY == 0
        if due and self._calibrated_at != self._updates:
            self._calibrated_at = self._updates
            self.effort = encoder.calibrate(D, self.sample[:CALIBRATION_ROWS], self.effort)
        return encoder.training(D, self.effort)

    def _replace_dead(self, D: Tensor, dead: Tensor) -> Tensor:
        """Point dead atoms at the residuals of badly reconstructed rows of the sample.

        Rows are drawn by squared error from the seed, so that every process makes the same choice.  Sums and
        counters of a replaced atom are reset.
        """
        if not len(dead):
            return D
        residual = self.sample - self._training_encode(D)(self.sample) @ D
        directions = self.recipe.constraint.directions(residual)
        error = torch.where((directions != 0).any(dim=1), residual.square().sum(dim=1), 0.0).double().cpu()
        count = min(len(dead), int((error > 0).sum()))
        if not count:
            return D
        generator = torch.Generator().manual_seed(self.recipe.seed + self._updates)
        chosen = torch.multinomial(error, count, generator=generator).to(D.device)
        D, dead = D.clone(), dead[:count]
        D[dead] = into_unit_ball(unit_atoms(directions[chosen]))
        self.total.gram[dead], self.total.gram[:, dead], self.total.cross[dead] = 0.0, 0.0, 0.0
        self._silent[dead] = 0.0
        self.replaced = (self.replaced or 0) + count
        return D

    def state_dict(self) -> dict[str, Any]:
        state = {key: getattr(self, name) for key, name in STATE.items()}
        state["tuner"] = {} if self.tuner is None else self.tuner.state_dict()
        return state | {
            "total": self.total.tensors(),
            "pending": self.pending.tensors(),
            "silent": self._silent,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for key, name in STATE.items():
            setattr(self, name, state[key])
        self.effort = tuple(self.effort)
        if self.tuner is not None:
            self.tuner.load_state_dict(state["tuner"])
        self.total.load_(state["total"])
        self.pending.load_(state["pending"])
        self._silent = state["silent"].to(self._silent.device)
        self._encode = None


STATE = {name: name for name in ("rows_seen", "replaced", "effort", "_updates", "_error", "_unexplained",
                                 "_previous_objective", "_converged")} | {
    "_settled_at": "_calibrated_at", "_pass_rows": "_epoch_rows", "_pass_objective": "_epoch_objective",
    "_pass_nonzeros": "_epoch_nonzeros",
}  # fmt: skip
"""Key in a checkpoint (fixed since the first release): attribute."""
