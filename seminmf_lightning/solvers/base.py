"""The interface of every dictionary solver.

Legend:  D (k, d) dictionary   S = Z^T Z (k, k)   P = Z^T A (k, d)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from seminmf_lightning.core.checks import whole_number
from seminmf_lightning.core.constraints import Constraint


@dataclass(frozen=True, kw_only=True)
class Solver(ABC):  # noqa: B024 - methods differ in what they move the atoms by
    """A method that moves the atoms.  The fields tell a training loop when; each solver adds its own."""

    update_every: int | None = None
    """Batches per update; all of them enter the sums.  None: 512 rows per update (k / 2 if that is more) at
    first, later up to 8,192 or four times as many, whatever the batch size (``ksvd``: 8,192, or k if that is
    more); or 16 updates per epoch if one epoch is exact, because the decisive steps follow the epoch."""

    default_for: ClassVar[str | None] = None
    """The problem for which ``solver=None`` chooses this solver: ``bounded``, ``free`` (atoms) or None."""
    supports_penalty: ClassVar[bool] = True
    """Whether the method can keep atoms in the unit ball, as l1_penalty > 0 needs."""
    needs_sparse_codes: ClassVar[bool] = False
    """Whether the method works on rows with few nonzero codes alone."""

    @property
    def shares_atoms(self) -> bool:
        """Whether each process holds the sums of its own atoms alone."""
        return False

    def supports(self, constraint: Constraint) -> bool:
        """Whether the method can keep the signs that ``constraint`` asks for."""
        return True

    def __post_init__(self) -> None:
        if self.update_every is not None:
            whole_number("solver.update_every", self.update_every, 1)


@dataclass(frozen=True, kw_only=True)
class StatisticsSolver(Solver):
    """Minimise ``1/2 <D, S D> - <P, D>`` over atoms of the right signs (with ``||D_j|| <= 1`` if bounded).

    A step never raises the objective.
    """

    steps_per_batch: int = 1
    """Solver steps per update."""
    max_iter: int = 500
    """l1_penalty = 0: maximum number of solver steps on the complete second moment, after the epoch."""

    needs_positive_start: ClassVar[bool] = False
    """Whether an entry that is zero stays zero, so that the starting dictionary must have none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("solver.steps_per_batch", self.steps_per_batch, 1)
        whole_number("solver.max_iter", self.max_iter, 0)

    @abstractmethod
    def step(self, D: Tensor, S: Tensor, P: Tensor, *, constraint: Constraint, bounded: bool) -> Tensor:
        """Return a better dictionary (k, d) as a new tensor; ``D`` is not changed.

        ``constraint.project_atoms(D, bounded)`` is the projection onto the dictionaries allowed.
        """
