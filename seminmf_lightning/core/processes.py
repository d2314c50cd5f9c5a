"""What an algorithm asks of the other processes of its run, and the atoms whose sums each of them holds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

GROUP = 64
"""Atoms that stay together: a solver may move them as one."""


class Processes:
    """One process alone; training takes those of its process group in its place."""

    rank = 0
    count = 1

    def add_(self, sums: Tensor) -> None:
        """Replace a tensor by its sum over processes."""

    def gather(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return each tensor with its rows of all processes, in order of rank; their counts may differ."""
        return tensors

    def broadcast_(self, x: Tensor, source: int) -> None:
        """Replace a tensor by that of one process."""


@dataclass(frozen=True)
class AtomShares:
    """Who holds which rows of ``S = Z^T Z`` and ``P = Z^T A``: each process those of consecutive atoms.

    >>> AtomShares.of(200, Processes()).own
    slice(0, 200, None)
    """

    slices: tuple[slice, ...]
    """The atoms of each process."""
    processes: Processes

    @classmethod
    def of(cls, concepts: int, processes: Processes, *, whole: bool = False) -> AtomShares:
        """Share out the atoms in whole groups; if ``whole``, every process holds all of them."""
        count = 1 if whole else processes.count
        groups = -(-concepts // GROUP)
        ends = [min(concepts, groups * process // count * GROUP) for process in range(count + 1)]
        slices = tuple(slice(first, end) for first, end in pairwise(ends))
        return cls(slices, Processes() if whole else processes)

    @property
    def own(self) -> slice:
        """The atoms of this process."""
        return self.slices[self.processes.rank]

    @property
    def many(self) -> bool:
        """Whether a process holds only a part of the atoms."""
        return len(self.slices) > 1

    @property
    def idle(self) -> int:
        """The number of processes that hold no atom."""
        return sum(atoms.start == atoms.stop for atoms in self.slices)
