"""What every learner is: sums over rows in, a better dictionary out.

The estimator (one process, rows in memory) and the Lightning module (many processes, rows from disk) drive
the same object:

    D = learner.start(sample)
    for A in batches:
        learner.observe(A, D)       # adds this process's rows to learner.pending
        ...                         # many processes: pending <- its sum over processes
        learner.absorb()            # pending moves into the totals
        D = learner.improve(D)      # one solver step, from the totals alone
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from seminmf_lightning.core.discovery import name_of, spec_of
from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.core.sums import Sums
from seminmf_lightning.encoders import Effort, Encoder
from seminmf_lightning.learners.recipe import Recipe


class Learner(ABC):
    """Holds the sums over the data; never the dictionary, which the caller owns."""

    order_matters: ClassVar[bool]
    """Whether rows should come shuffled."""
    one_pass: ClassVar[bool]
    """Whether one pass over the data is all that is of use."""
    update_rows: ClassVar[int | None]
    """Rows of all processes together between two updates of the dictionary, where the caller does not say
    otherwise."""
    dictionary_dtype: ClassVar[torch.dtype]

    pending: Sums
    """This process's rows since the last :meth:`absorb`."""
    total: Sums
    """Of all processes."""

    def __init__(self, recipe: Recipe, features: int) -> None:
        self.recipe = recipe
        self.features = features
        self.normalizer = Normalizer()
        self.rows_seen = 0
        self.effort: Effort = ()
        """What the encoder settled on; :meth:`Encoder.precise` takes it up."""
        self.replaced: int | None = None
        """Dead atoms given a new direction so far, where the method looks for any."""

    @property
    def penalty(self) -> float:
        """Weight of ``||z||_1`` at present."""
        return self.recipe.l1_penalty

    @property
    def encoder(self) -> Encoder:
        """The encoder at the present penalty."""
        return self.recipe.encoder

    def plain_recipe(self) -> dict[str, Any]:
        """The recipe with the penalty as tuned: what encodes new rows like those of the training."""
        return self.recipe.plain() | {"l1_penalty": self.penalty, "encoder": spec_of(self.encoder)}

    def start(self, sample: Tensor, held_out: Tensor | None = None, rows: int | None = None) -> Tensor:
        """Settle the normaliser on a sample of raw rows (m, d) and return the starting dictionary.

        A penalty that is tuned is tuned on the raw rows ``held_out``, or on the sample where there are none.
        ``rows`` is how many a pass has, where that is known.
        """
        self.attach_sample(sample, held_out=held_out, rows=rows)
        generator = torch.Generator().manual_seed(self.recipe.seed)
        positive = self.recipe.solver.needs_positive_start
        D = self.recipe.init.start(
            self.normalizer.apply(sample), self.recipe.nb_concepts, generator, positive=positive
        )
        return self.begin(D.to(self.dictionary_dtype))

    def begin(self, D: Tensor) -> Tensor:
        """Whatever else is to be settled with the starting dictionary."""
        return D

    def attach_sample(
        self,
        sample: Tensor,
        normalizer: Normalizer | None = None,
        *,
        held_out: Tensor | None = None,
        rows: int | None = None,
    ) -> None:
        """Keep what is needed of the sample; after a resume, with the normaliser of the checkpoint."""
        self.normalizer = normalizer or Normalizer.fit(sample, self.recipe.normalize)

    def to_(self, device: torch.device) -> None:
        """Move every sum to ``device``."""
        self.pending.to_(device)
        self.normalizer = self.normalizer.to(device)

    @abstractmethod
    def observe(self, A: Tensor, D: Tensor) -> None:
        """Add raw rows ``A`` (n, d), n >= 0, to :attr:`pending`.

        Raises:
            FloatingPointError: a row holds NaN or Inf, or is too large; :attr:`pending` is as before.
        """

    def step(self, D: Tensor, S: Tensor, P: Tensor) -> Tensor:
        """The solver's step, or FloatingPointError: a dictionary that is not finite goes no further."""
        better = self.recipe.solver.step(D, S, P, bounded=self.recipe.bounded)
        if not better.sum().isfinite():  # a fortieth of the time of `isfinite().all()`
            finite = S.isfinite().all() and P.isfinite().all()
            cause = (
                f"solver={name_of(self.recipe.solver)} returned"
                if finite
                else "the statistics of the codes hold"
            )
            raise FloatingPointError(f"{cause} NaN or Inf")
        return better

    @abstractmethod
    def absorb(self) -> None:
        """Move :attr:`pending`, by now summed over all processes, into the totals."""

    @abstractmethod
    def improve(self, D: Tensor) -> Tensor:
        """One solver step from the totals.

        Raises:
            FloatingPointError: it is not finite.
        """

    @abstractmethod
    def mean_squared_error(self, D: Tensor) -> float:
        """Training reconstruction loss, mean squared error an element, in data units."""

    @abstractmethod
    def unexplained(self, D: Tensor) -> float:
        """Training objective as a share of that of the zero dictionary, ``||A||_F^2 / 2``; 0 where that is
        0."""

    @abstractmethod
    def optimality_gap(self, D: Tensor) -> float | None:
        """``loss / bound - 1`` on the rows seen; None where no bound is known."""

    @abstractmethod
    def converged(self) -> bool:
        """Whether the last look at the objective found it lower by less than ``tol``, relatively."""

    @abstractmethod
    def end_pass(self, D: Tensor) -> Tensor:
        """All rows have been seen once more: whatever the method does then, a better dictionary perhaps."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers that :meth:`load_state_dict` continues from, bit for bit."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``."""
