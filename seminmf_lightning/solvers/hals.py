"""Hierarchical alternating least squares: exact minimisation over one atom after the other.

Cichocki & Phan, "Fast local algorithms for large scale nonnegative matrix and tensor factorizations", IEICE
E92-A, 2009; for semi-NMF Gillis & Kumar, SIAM J. Matrix Anal. Appl. 36(4), 2015, section 2.2; with unit atoms
it is the dictionary update of Mairal et al., JMLR 11, 2010, Algorithm 2.  Deviation: under a penalty, which
makes codes sparse, neighbouring atoms that rarely fire in the same row move together.

Legend:  D (k, d) dictionary   S = Z^T Z (k, k)   P = Z^T A (k, d)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from seminmf_lightning.core.checks import one_of, whole_number
from seminmf_lightning.core.constraints import Constraint
from seminmf_lightning.core.processes import GROUP, AtomShares, Processes
from seminmf_lightning.solvers.base import StatisticsSolver

BLOCK, AT_ONCE = 16, GROUP
"""Atoms that may move together, and atoms whose descent is one product; moves within correct it."""
SHARDS = ("atoms",)
NEARLY_APART = 2.0
"""Bounded atoms of a block move together if ``sum_i |S_ji| <= NEARLY_APART S_jj`` over the block: their step
is then at least half as long as the exact one.  All other atoms move one by one."""


@dataclass(frozen=True, kw_only=True)
class HALS(StatisticsSolver):
    """For j = 1..k: ``D_j <- proj(D_j + (P_j - S_j D) / S_jj)``, the exact minimiser over atom j.

    Atoms that move together divide by ``sum_i |S_ji|`` over their block instead.  That majorises the block
    (Gershgorin), so the objective cannot rise either.

    >>> from seminmf_lightning.core.constraints import CONSTRAINTS
    >>> S, P = torch.tensor([[2.0]]), torch.tensor([[4.0, -1.0]])
    >>> HALS().step(torch.ones(1, 2), S, P, constraint=CONSTRAINTS["dictionary"], bounded=False)
    tensor([[2., 0.]])
    """

    sweeps: int = 1
    """Sweeps over all atoms per solver step."""
    shard: str | None = None
    """``atoms``: with codes as statistics, each process holds S and P of its own atoms alone, and the
    processes sweep one after the other; the dictionary is that of one process."""

    default_for: ClassVar[str | None] = "bounded"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("solver.sweeps", self.sweeps, 1)
        if self.shard is not None:
            one_of("solver.shard", self.shard, SHARDS)

    @property
    def shares_atoms(self) -> bool:
        return self.shard is not None

    def step(
        self, D: Tensor, S: Tensor, P: Tensor, *, constraint: Constraint, bounded: bool,
        shares: AtomShares | None = None,
    ) -> Tensor:  # fmt: skip
        """As the base class; with ``shares``, S and P have the rows of this process's atoms."""
        shares = shares or AtomShares.of(len(D), Processes())
        D, own = D.clone(), shares.own
        square = S[:, own]
        (curvature,) = shares.processes.gather(square.diagonal().contiguous())
        floor = curvature.max() * torch.finfo(S.dtype).eps
        curvature = curvature[own]
        blocks = [square[i : i + BLOCK, i : i + BLOCK].abs().sum(dim=1) for i in range(0, len(S), BLOCK)]
        sums = torch.cat([curvature[:0], *blocks])
        apart = ((sums <= NEARLY_APART * curvature) | (curvature <= floor)) & bounded
        # The step of an atom without codes is zero.
        one_by_one, together = (
            torch.where(curvature > floor, 1 / x.clamp(min=floor), 0.0) for x in (curvature, sums)
        )
        groups = list(_moves(apart.tolist(), together, one_by_one))
        for _ in range(self.sweeps):
            for process, atoms in enumerate(shares.slices):
                for first, end, moves in groups if atoms == own else ():
                    descent = torch.addmm(P[first:end], S[first:end], D, alpha=-1)
                    for start, stop, lengths in moves:
                        old = D[own][start:stop]
                        moved = torch.addcmul(
                            old, descent[start - first : stop - first], lengths[start:stop, None]
                        )
                        moved = constraint.project_atoms(moved, bounded)
                        descent[stop - first :].addmm_(square[stop:end, start:stop], moved - old, alpha=-1)
                        old.copy_(moved)
                shares.processes.broadcast_(D[atoms], process)
        return D


def _moves(
    apart: list[bool], together: Tensor, one_by_one: Tensor
) -> Iterator[tuple[int, int, list[tuple[int, int, Tensor]]]]:
    """Yield the atoms [first, end) of each part of a sweep, with its moves: [start, stop), step lengths."""
    for first in range(0, len(apart), AT_ONCE):
        end, moves = min(first + AT_ONCE, len(apart)), []
        for start in range(first, end, BLOCK):
            stop = min(start + BLOCK, end)
            if all(apart[start:stop]):
                moves.append((start, stop, together))
            else:
                moves += [(j, j + 1, one_by_one) for j in range(start, stop)]
        yield first, end, moves
