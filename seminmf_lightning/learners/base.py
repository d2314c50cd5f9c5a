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

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from seminmf_lightning.core.checks import one_of, real_number, whole_number
from seminmf_lightning.core.discovery import available, build, spec_of, without_numpy
from seminmf_lightning.core.normalize import MODES, Normalizer
from seminmf_lightning.core.sums import Sums
from seminmf_lightning.encoders import Effort, Encoder, Penalised
from seminmf_lightning.inits import Init
from seminmf_lightning.learners.penalty import START
from seminmf_lightning.solvers import Solver

STATISTICS = ("auto", "second_moment", "codes")
AFFORDABLE_FEATURES = 8192
"""Widest d for which ``statistics=auto`` keeps C (d, d): 0.5 GB in float64."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every choice that is not the data, checked; the problem and the algorithms that solve it."""

    nb_concepts: int = 64
    """Atoms of the dictionary, k."""
    l1_penalty: float = 0.0
    """Weight of ``||z||_1`` in the objective, in normalised units (rows of mean norm 1)."""
    target_l0: float | None = None
    """Instead of a penalty: the mean nonzeros a row that the penalty is tuned to while training, on held-out
    rows."""
    solver: Any = "hals"
    """A name, a mapping with a ``name``, or a :class:`Solver`; the recipe holds the :class:`Solver`."""
    init: Any = "data"
    """Likewise an :class:`Init`."""
    encoder: Any = "auto"
    """Likewise an :class:`Encoder`; ``auto``: lasso under a penalty, else least squares."""
    statistics: str = "auto"
    """``second_moment`` (exact, one pass, l1_penalty = 0 only), ``codes`` (online), or ``auto``."""
    normalize: str = "scale"
    """``scale`` rows to a mean norm of 1, ``center`` and scale them, or ``none``."""
    tol: float = 1e-4
    """Relative decrease of the objective below which training stops: over ten solver steps, or over a
    pass."""
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, without_numpy(getattr(self, field.name)))
        whole_number("nb_concepts", self.nb_concepts, 1)
        whole_number("seed", self.seed, 0)
        real_number("l1_penalty", self.l1_penalty, 0)
        real_number("tol", self.tol, 0)
        if self.target_l0 is not None:
            real_number("target_l0", self.target_l0, 0, exclusive=True)
            if self.target_l0 > self.nb_concepts:
                raise ValueError(
                    f"target_l0={self.target_l0:g} is more than nb_concepts={self.nb_concepts}; it must be in (0, k]"
                )
            if self.l1_penalty > 0:
                raise ValueError(
                    f"target_l0={self.target_l0:g} and l1_penalty={self.l1_penalty:g} are two ways to say the same: give one"
                )
        one_of("statistics", self.statistics, STATISTICS)
        one_of("normalize", self.normalize, MODES)
        solver = build(Solver, self.solver)
        object.__setattr__(self, "solver", solver)
        object.__setattr__(self, "init", build(Init, self.init))
        object.__setattr__(self, "encoder", self._build_encoder())
        if self.penalised and not solver.supports_penalty:
            asked = (
                f"l1_penalty={self.l1_penalty:g}"
                if self.target_l0 is None
                else f"target_l0={self.target_l0:g}"
            )
            able = [name for name, kind in available(Solver).items() if kind.supports_penalty]
            raise ValueError(
                f"solver={_name(solver)} cannot keep the atoms bounded, which {asked} needs "
                f"(else D grows, Z shrinks and nothing gets sparse): use solver={' or solver='.join(able)}"
            )
        if self.penalised and not isinstance(self.encoder, Penalised):
            raise ValueError(
                f"encoder={_name(self.encoder)} knows no penalty: use encoder=lasso or auto, or l1_penalty=0"
            )
        if (self.penalised or self.encoder.sparse) and self.statistics == "second_moment":
            raise ValueError(
                "statistics=second_moment is exact only for least-squares codes (l1_penalty=0); use statistics=codes or auto"
            )

    def _build_encoder(self) -> Encoder:
        if isinstance(self.encoder, Encoder):
            return self.encoder
        spec = {"name": self.encoder} if isinstance(self.encoder, str) else dict(self.encoder)
        if spec.get("name") == "auto":
            spec = {"name": "lasso" if self.penalised else "least_squares"}
        if spec.get("name") == "lasso":
            spec.setdefault("l1_penalty", self.l1_penalty if self.target_l0 is None else START)
        return build(Encoder, spec)

    @property
    def penalised(self) -> bool:
        """Whether the objective has an l1 term, of given or of tuned weight."""
        return self.l1_penalty > 0 or self.target_l0 is not None

    @property
    def bounded(self) -> bool:
        """Whether atoms are kept in the unit ball: a penalty needs it, and codes counted one by one read
        better with it."""
        return self.penalised or (self.encoder.sparse and self.solver.supports_penalty)

    def plain(self) -> dict[str, Any]:
        """Numbers, strings and mappings of them, from which ``Recipe(**plain)`` makes an equal recipe."""
        made = {name: spec_of(getattr(self, name)) for name in ("solver", "init", "encoder")}
        return {field.name: getattr(self, field.name) for field in fields(self)} | made

    def statistics_for(self, features: int) -> str:
        """``second_moment`` or ``codes``: what ``auto`` means for d features."""
        if self.statistics != "auto":
            return self.statistics
        exact = not self.penalised and not self.encoder.sparse
        return "second_moment" if exact and features <= AFFORDABLE_FEATURES else "codes"


def _name(algorithm: object) -> str:
    return type(algorithm).__module__.rpartition(".")[2]


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
                f"solver={_name(self.recipe.solver)} returned"
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


def make_learner(recipe: Recipe, features: int) -> Learner:
    """The learner that the recipe asks for, for rows of ``features`` numbers."""
    recipe.encoder.check(recipe.nb_concepts, features)
    if not recipe.penalised and not recipe.encoder.sparse and recipe.nb_concepts >= features:
        warnings.warn(
            f"nb_concepts={recipe.nb_concepts} is not less than the {features} features: with l1_penalty=0 such a "
            "dictionary fits anything exactly, the identity does; lower nb_concepts or set l1_penalty",
            stacklevel=2,
        )
    from seminmf_lightning.learners.exact import FullBatch
    from seminmf_lightning.learners.online import Online

    return {"second_moment": FullBatch, "codes": Online}[recipe.statistics_for(features)](recipe, features)
