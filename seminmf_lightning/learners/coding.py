"""Codes of normalised rows for training, at a penalty that is given or tuned to a number of nonzeros.

Legend:  A (n, d)   Z (n, k)   D (k, d)
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.encoders import Encode, Encoder, Penalised
from seminmf_lightning.learners.base import Learner
from seminmf_lightning.learners.penalty import PenaltyTuner

TUNING_ROWS, CALIBRATION_ROWS = 2048, 128
"""Rows of the sample on which a penalty is tuned, where none are held out, and an encoder's work per row."""
CALIBRATE_EVERY = 64
"""Updates of D between calibrations, apart from two early ones."""
ROUGH_ITERATIONS = 30
"""Encoder iterations when nonzeros are counted with the initial dictionary, which soon changes."""


class CodingLearner(Learner):
    """A learner whose updates need codes of the rows."""

    order_matters, single_epoch = True, False
    dictionary_dtype: ClassVar[torch.dtype] = torch.float32
    sample_rows: ClassVar[int] = 2048
    """Rows of the sample from which dead atoms get a new direction."""

    def reset(self) -> None:
        super().reset()
        self.tuner = None if self.recipe.target_l0 is None else PenaltyTuner(self.recipe.target_l0)
        self._encode: Encode | None = None
        self._epoch_size: int | None = None
        self._updates, self._calibrated_at = 0, -1

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
        self._epoch_size = rows
        tuning = sample[:TUNING_ROWS] if held_out is None else held_out
        normalised = self.normalizer.apply(sample[: self.sample_rows]).double()
        self.sample = normalised.to(self.dictionary_dtype)
        if len(self.sample):
            squares = float(normalised.square().sum())
            variation = float((normalised - normalised.mean(dim=0)).square().sum())
            self.warn_of_offset(normalised, variation / squares if squares else 1.0)
        self.tuning = self.normalizer.apply(tuning).to(self.dictionary_dtype)  # rows to count nonzeros of

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

    def _follow(self, nonzeros: float) -> None:
        """Adjust the penalty to the mean nonzeros per row of an update, if they have a target."""
        if self.tuner is not None:
            self.tuner.follow(nonzeros)

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
