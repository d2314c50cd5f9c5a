"""Training settings, except those of the data: the only place that declares, documents and checks them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from seminmf_lightning.core.checks import known_names, one_of, real_number, whole_number
from seminmf_lightning.core.constraints import CONSTRAINTS, Constraint, constraint
from seminmf_lightning.core.discovery import available, build, default_for, name_of, spec_of, without_numpy
from seminmf_lightning.core.normalize import MODES
from seminmf_lightning.core.sums import AFFORDABLE_FEATURES
from seminmf_lightning.encoders import Encoder, Penalised
from seminmf_lightning.inits import Init
from seminmf_lightning.learners.penalty import INITIAL_PENALTY
from seminmf_lightning.solvers import Solver, StatisticsSolver

STATISTICS = ("auto", "second_moment", "codes")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The problem to solve and the algorithms that solve it, validated on construction.

    The one declaration of the settings that the YAML files, the estimator, the Lightning module and the
    integrations accept; they pass ``**settings`` to :meth:`from_settings`.

    Raises:
        TypeError: a setting has the wrong type.
        ValueError: a setting is out of range, or two settings contradict each other.

    >>> from seminmf_lightning.learners import Recipe
    >>> recipe = Recipe(nb_concepts=32, l1_penalty=0.1)
    >>> type(recipe.solver).__name__, type(recipe.encoder).__name__
    ('HALS', 'Lasso')
    >>> type(Recipe(nb_concepts=32).solver).__name__
    'MultiplicativeUpdate'
    """

    nb_concepts: int = 64
    """Atoms of the dictionary, k."""
    l1_penalty: float = 0.0
    """Weight of ``||z||_1`` in the objective, in normalised units (rows of mean norm 1)."""
    target_l0: float | None = None
    """Instead of ``l1_penalty``: mean nonzeros per row; the penalty is tuned to reach it on held-out rows."""
    nonnegative: str = "dictionary"
    """The nonnegative factor: ``dictionary`` (codes are free in sign), ``codes``, ``both`` or ``none``."""
    solver: Any = None
    """A name, a mapping with a ``name``, a :class:`Solver`, or None: ``mu`` for free codes without a penalty,
    ``hals`` if atoms must stay bounded (a penalty or a sparse encoder), codes are nonnegative, or no sign is
    constrained.  The recipe holds the :class:`Solver`."""
    init: Any = "data"
    """A name, a mapping with a ``name``, or an :class:`Init`; the recipe holds the :class:`Init`."""
    encoder: Any = "auto"
    """A name, a mapping with a ``name``, an :class:`Encoder`, or ``auto``: ``lasso`` under a penalty, else
    ``least_squares``.  The recipe holds the :class:`Encoder`."""
    statistics: str = "auto"
    """``second_moment`` (exact, one epoch, l1_penalty = 0 and codes free in sign only), ``codes`` (online),
    or ``auto``."""
    normalize: str = "scale"
    """``scale`` rows to a mean norm of 1, ``center`` and scale them, or ``none``."""
    tol: float = 1e-4
    """Relative decrease of the objective below which training stops: over ten solver steps (exact) or over an
    epoch (online)."""
    seed: int = 0
    """Seed of the initial dictionary, the order of rows and the replacement of dead atoms."""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Recipe:
        """Make a recipe from keyword arguments.

        Raises:
            TypeError: a key is not a setting; the message suggests the nearest one.

        >>> Recipe.from_settings({"l1_penality": 0.1})
        Traceback (most recent call last):
        TypeError: unknown setting 'l1_penality'; did you mean 'l1_penalty'? accepted: nb_concepts, ...
        """
        known_names("setting", settings, [field.name for field in fields(cls)])
        return cls(**settings)

    @classmethod
    def from_saved(cls, settings: Mapping[str, Any]) -> Recipe:
        """Make a recipe from the settings in a file, which mean what they meant when it was written.

        >>> saved = {"nb_concepts": 9, "encoder": {"name": "omp", "nonzeros": 2}}  # as of 0.1.0
        >>> Recipe.from_saved(saved).encoder.selection
        'correlation'
        """
        encoder = settings.get("encoder")
        if isinstance(encoder, Mapping) and (kind := available(Encoder).get(str(encoder.get("name")))):
            settings = {**settings, "encoder": {**kind.formerly, **encoder}}
        return cls(**settings)

    def __post_init__(self) -> None:
        for field in fields(self):
            self._set(field.name, without_numpy(getattr(self, field.name)))
        whole_number("nb_concepts", self.nb_concepts, 1)
        whole_number("seed", self.seed, 0)
        real_number("l1_penalty", self.l1_penalty, 0)
        real_number("tol", self.tol, 0)
        one_of("statistics", self.statistics, STATISTICS)
        one_of("normalize", self.normalize, MODES)
        constraint(self.nonnegative)
        if self.target_l0 is not None:
            self._check_target(self.target_l0)
        self._set("init", build(Init, self.init))
        self._set("encoder", self._build_encoder())
        self._set("solver", build(Solver, self._default_solver() if self.solver is None else self.solver))
        self._check_combination()
        self._check_signs()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_target(self, target: float) -> None:
        real_number("target_l0", target, 0, exclusive=True)
        if target > self.nb_concepts:
            raise ValueError(
                f"target_l0={target:g} is more than nb_concepts={self.nb_concepts}; it must be in (0, k]"
            )
        if self.l1_penalty > 0:
            raise ValueError(
                f"target_l0={target:g} and l1_penalty={self.l1_penalty:g} exclude each other: give one"
            )

    def _build_encoder(self) -> Encoder:
        if not isinstance(self.encoder, str | Mapping):
            encoder: Encoder = build(Encoder, self.encoder)
            return encoder
        spec = {"name": self.encoder} if isinstance(self.encoder, str) else dict(self.encoder)
        if spec.get("name") == "auto":
            spec["name"] = default_for(Encoder, "penalised" if self.penalised else "unpenalised")
        if issubclass(available(Encoder).get(str(spec.get("name")), Encoder), Penalised):
            spec.setdefault("l1_penalty", self.l1_penalty if self.target_l0 is None else INITIAL_PENALTY)
        spec.setdefault("nonnegative", self.constraint.nonnegative_codes)
        return build(Encoder, spec)

    def _default_solver(self) -> str:
        free = default_for(Solver, "free")
        usable = self.codes_are_linear and build(Solver, free).supports(self.constraint)
        return free if usable else default_for(Solver, "bounded")

    def _check_signs(self) -> None:
        signs = self.constraint
        if not self.solver.supports(signs):
            able = [name for name in available(Solver) if build(Solver, name).supports(signs)]
            raise ValueError(
                f"solver={name_of(self.solver)} cannot keep the signs of nonnegative={signs.name}: use "
                f"solver={' or solver='.join(able)}"
            )
        if signs.nonnegative_codes and not self.encoder.supports_nonnegative:
            able = [name for name, kind in available(Encoder).items() if kind.supports_nonnegative]
            raise ValueError(
                f"encoder={name_of(self.encoder)} has no nonnegative codes, which nonnegative={signs.name} "
                f"needs: use encoder={' or encoder='.join(able)}"
            )
        if signs.nonnegative_codes != self.encoder.nonnegative:
            raise ValueError(
                f"encoder.nonnegative={self.encoder.nonnegative} contradicts nonnegative={signs.name}: set "
                "nonnegative alone, to dictionary, codes, both or none"
            )
        if signs.nonnegative_codes and self.statistics == "second_moment":
            raise ValueError(
                "statistics=second_moment is exact because free codes are Z = A D^+; with nonnegative="
                f"{signs.name} they depend on each row: use statistics=codes or statistics=auto"
            )
        if signs.is_nmf and self.normalize == "center":
            raise ValueError(
                f"normalize=center makes rows negative, which nonnegative={signs.name} cannot fit: use "
                "normalize=scale, or nonnegative=codes"
            )

    def _check_combination(self) -> None:
        if self.penalised and not self.solver.supports_penalty:
            penalty = (
                f"l1_penalty={self.l1_penalty:g}"
                if self.target_l0 is None
                else f"target_l0={self.target_l0:g}"
            )
            able = [name for name, kind in available(Solver).items() if kind.supports_penalty]
            raise ValueError(
                f"solver={name_of(self.solver)} cannot keep the atoms bounded, which {penalty} needs "
                f"(else D grows, Z shrinks and no code becomes zero): use solver={' or solver='.join(able)}"
            )
        if self.penalised and not isinstance(self.encoder, Penalised):
            able = [name for name, kind in available(Encoder).items() if issubclass(kind, Penalised)]
            raise ValueError(
                f"encoder={name_of(self.encoder)} takes no penalty: use encoder={' or encoder='.join(able)} "
                "or encoder=auto, or set l1_penalty=0"
            )
        if self.solver.needs_sparse_codes and not (self.penalised or self.encoder.sparse):
            raise ValueError(
                f"solver={name_of(self.solver)} learns from rows with few nonzero codes: set target_l0 or "
                "l1_penalty, or a sparse encoder such as encoder=omp"
            )
        if (self.penalised or self.encoder.sparse) and self.statistics == "second_moment":
            raise ValueError(
                "statistics=second_moment is exact only for least-squares codes (l1_penalty=0); use "
                "statistics=codes or statistics=auto"
            )

    @property
    def constraint(self) -> Constraint:
        """Signs of the two factors."""
        return CONSTRAINTS[self.nonnegative]

    @property
    def codes_are_linear(self) -> bool:
        """Whether codes are linear in the rows, so that the second moment of these is all that is needed."""
        return not self.penalised and not self.encoder.sparse and not self.constraint.nonnegative_codes

    @property
    def penalised(self) -> bool:
        """Whether the objective has an l1 term, of given or of tuned weight."""
        return self.l1_penalty > 0 or self.target_l0 is not None

    @property
    def bounded(self) -> bool:
        """Whether atoms stay in the unit ball: a penalty needs it; sparse codes are comparable with it."""
        return self.penalised or (self.encoder.sparse and self.solver.supports_penalty)

    @property
    def max_iter(self) -> int:
        """Most solver steps after the data."""
        return self.solver.max_iter if isinstance(self.solver, StatisticsSolver) else 0

    def plain(self) -> dict[str, Any]:
        """Return numbers, strings and mappings from which ``Recipe(**plain)`` makes an equal recipe."""
        algorithms = {name: spec_of(getattr(self, name)) for name in ("solver", "init", "encoder")}
        return {field.name: getattr(self, field.name) for field in fields(self)} | algorithms

    def statistics_for(self, features: int) -> str:
        """Return ``second_moment`` or ``codes``: the choice that ``auto`` makes for d ``features``."""
        if self.statistics != "auto":
            return self.statistics
        return "second_moment" if self.codes_are_linear and features <= AFFORDABLE_FEATURES else "codes"
