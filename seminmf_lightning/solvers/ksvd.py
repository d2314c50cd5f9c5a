"""K-SVD: each atom from the residuals of its rows, then their codes, for a stream of rows on many processes.

Aharon, Elad & Bruckstein, "K-SVD", IEEE Trans. Signal Process. 54(11), 2006, with one alternation in place of
the singular vectors as in Rubinstein, Zibulevsky & Elad, "Efficient implementation of the K-SVD algorithm",
2008.  Deviations: a block of atoms moves together, from sums that add up over processes; atoms and codes may
be constrained in sign; an atom also remembers earlier rows (``memory``), which averages out their noise.

Legend:  D (k, d) unit atoms   R (n, d) residuals A - Z D   Z (n, k) codes, m nonzeros per row at most
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad, softshrink

from seminmf_lightning.core.checks import real_number, whole_number
from seminmf_lightning.core.compiled import Array, compiled, in_order, in_threads, on_cpu
from seminmf_lightning.core.constraints import Constraint
from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.core.sums import round_to_grid_
from seminmf_lightning.solvers.base import Solver

BLOCKS = 8
"""Atoms move in this many blocks.  Planted atoms are found as well as one by one with 8 or 32 blocks (mean
correlation .956 and .950, one by one .952), and not at all with a single one (.26)."""
GRID = 2.0**-36
"""Products are rounded to multiples of this, so that sums below 2^17 are exact, whatever their order."""
SHIFT = 1.5 * 2.0**52 * GRID


@dataclass(frozen=True, kw_only=True)
class KSVD(Solver):
    """``D_j <- unit(proj(sum_i z_ij (R_i + z_ij D_j)))``, then ``z_ij <- shrink(<R_i + z_ij D_j, D_j>)``.

    The sums run over the rows since the last update, and so few numbers are exchanged by processes:
    ``sweeps * k * (d + 1)`` per update, whatever the number of rows.
    """

    sweeps: int = 3
    """Sweeps over all atoms per update."""
    updates: int = 100
    """Updates in all, fewer if ``trainer.max_epochs`` ends before; the schedule below stretches over them."""
    trim: int | None = None
    """Largest codes of each row that move atoms; None: ``target_l0`` of them, or 64."""
    replace: float = 0.0
    """Share of the atoms, those of the smallest mean code, that get a new direction every fourth update; it
    falls to 0 over the first part of training.  Atoms that are idle or near duplicates always do."""

    coarse: int = 0
    """Atoms that learn first, alone; the others learn from what these leave.  Keeps a general concept apart
    from special ones that fire only with it; an eighth of the atoms is a good number."""

    needs_sparse_codes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("solver.sweeps", self.sweeps, 1)
        whole_number("solver.updates", self.updates, 1)
        if self.trim is not None:
            whole_number("solver.trim", self.trim, 1)
        whole_number("solver.coarse", self.coarse, 0)
        real_number("solver.replace", self.replace, 0)
        if self.replace > 0.5:
            raise ValueError(f"solver.replace={self.replace:g} must be at most 0.5: a share of the atoms")

    def improve(
        self, rows: SparseRows, D: Tensor, memory: Tensor, *, keep: float, threshold: float,
        constraint: Constraint, add_: Callable[[Tensor], None],
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return the dictionary and the memory (k, d) after the sweeps; ``rows`` are changed.

        Args:
            keep: weight of the memory beside the rows.
            threshold: what codes are shrunk by.
            add_: replaces a tensor by its sum over processes.
        """
        D, memory = D.clone(), memory.clone()
        for sweep in range(self.sweeps):
            for start, stop in block_edges(len(D)):
                sums = rows.pull(start, stop)
                add_(sums)
                before = D[start:stop].clone()
                target = sums[:, :-1] + sums[:, -1:] * before.double() + keep * memory[start:stop]
                atoms = unit_atoms(constraint.project_atoms(target, bounded=False)).to(D)
                D[start:stop] = torch.where((atoms != 0).any(dim=1, keepdim=True), atoms, before)
                if sweep == self.sweeps - 1:
                    memory[start:stop] = target
                rows.push_(start, stop, before, D[start:stop], threshold, constraint.nonnegative_codes)
        return D, memory


def block_edges(k: int) -> list[tuple[int, int]]:
    """Return first atom and last atom + 1 of each block.

    >>> block_edges(10)[:3]
    [(0, 1), (1, 2), (2, 3)]
    """
    edges = [k * i // BLOCKS for i in range(BLOCKS + 1)]
    return [(start, stop) for start, stop in pairwise(edges) if stop > start]


@dataclass
class SparseRows:
    """Rows of one process with their codes, packed: at most m of each row.

    >>> rows = SparseRows.of(torch.tensor([[3.0, 1.0]]), torch.tensor([[3.0, 0.5]]), torch.eye(2), most=1)
    >>> rows.residual, rows.pull(0, 2)
    (tensor([[0., 1.]]), tensor([[0., 3., 9.],
            [0., 0., 0.]], dtype=torch.float64))
    """

    residual: Tensor  # R (n, d)
    atoms: Tensor  # (n, m) int64
    codes: Tensor  # (n, m); 0 stands for none

    @classmethod
    def of(cls, A: Tensor, Z: Tensor, D: Tensor, most: int) -> SparseRows:
        """Keep the ``most`` largest codes of each row; the residuals are those of these codes."""
        atoms = Z.abs().topk(min(most, Z.shape[1]), dim=1, sorted=True).indices
        rows = cls(A.clone(), atoms, Z.gather(1, atoms))
        rows._subtract_(D)
        return rows

    @classmethod
    def joined(cls, parts: list[SparseRows], like: Tensor) -> SparseRows:
        """Return the rows of all parts; of none, no rows on the device of ``like`` (0, d)."""
        if not parts:
            empty = like.new_zeros(0, 1)
            return cls(like[:0].clone(), empty.long(), empty)
        m = max(part.codes.shape[1] for part in parts)
        padded = ((part, (0, m - part.codes.shape[1])) for part in parts)
        atoms, codes = zip(*((pad(p.atoms, width), pad(p.codes, width)) for p, width in padded), strict=True)
        return cls(torch.cat([part.residual for part in parts]), torch.cat(atoms), torch.cat(codes))

    def _subtract_(self, D: Tensor) -> None:
        if not on_cpu(D):
            for slot in range(self.atoms.shape[1]):
                self.residual.sub_(self.codes[:, slot, None] * D[self.atoms[:, slot]])
            return
        R, atoms, codes, E = self.residual.numpy(), self.atoms.numpy(), self.codes.numpy(), D.numpy()
        in_threads(lambda part: _subtract(R[part], atoms[part], codes[part], E), len(R))

    def pull(self, start: int, stop: int) -> Tensor:
        """Return ``sum_i z_ij R_i`` for a block of atoms, ``sum_i z_ij^2`` in the last column; float64."""
        R, width = self.residual, self.residual.shape[1]
        if not on_cpu(R):
            sums = R.new_zeros(stop - start, width + 1, dtype=torch.float64)
            for slot in range(self.atoms.shape[1]):
                inside, atoms, codes = self._of_block(slot, start, stop)
                extended = torch.cat([R[inside], codes[:, None]], dim=1).double()
                sums.index_add_(0, atoms - start, round_to_grid_(codes.double()[:, None] * extended, GRID))
            return sums
        rows, chosen, values = R.numpy(), self.atoms.numpy(), self.codes.numpy()

        def work(part: slice) -> Array:
            sums = np.zeros((stop - start, width + 1))
            _pull(rows[part], chosen[part], values[part], start, sums)
            return sums

        return torch.from_numpy(np.sum([work(slice(0)), *in_threads(work, len(R))], axis=0))

    def push_(
        self, start: int, stop: int, before: Tensor, after: Tensor, threshold: float, nonnegative: bool
    ) -> None:
        """Give the codes of a block of atoms, which moved, new values, one after the other in each row."""
        R = self.residual
        if not on_cpu(R):
            for slot in range(self.atoms.shape[1]):
                inside, atoms, codes = self._of_block(slot, start, stop)
                with_old = R[inside] + codes[:, None] * before[atoms - start]
                fitted = (with_old * after[atoms - start]).sum(dim=1)
                shrunk = softshrink(fitted, threshold)
                shrunk = shrunk.clamp(min=0) if nonnegative else shrunk
                R[inside] = with_old - shrunk[:, None] * after[atoms - start]
                self.codes[inside, slot] = shrunk
            return
        rows, chosen, values = R.numpy(), self.atoms.numpy(), self.codes.numpy()
        old, new, cosine = before.numpy(), after.contiguous().numpy(), (before * after).sum(dim=1).numpy()

        def work(part: slice) -> None:
            _push(rows[part], chosen[part], values[part], start, old, new, cosine, threshold, nonnegative)

        in_threads(work, len(R))

    def drop_(self, atoms: Tensor, D: Tensor) -> None:
        """Remove the codes of some atoms of D."""
        gone = torch.isin(self.atoms, atoms)
        dropped = SparseRows(self.residual, self.atoms, torch.where(gone, -self.codes, 0.0))
        dropped._subtract_(D)
        self.codes = torch.where(gone, 0.0, self.codes)

    def _of_block(self, slot: int, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return rows whose code in this slot is nonzero and of the block, its atoms and its values."""
        atoms, codes = self.atoms[:, slot], self.codes[:, slot]
        inside = ((atoms >= start) & (atoms < stop) & (codes != 0)).nonzero()[:, 0]
        return inside, atoms[inside], codes[inside]


@compiled
def _subtract(R: Array, atoms: Array, codes: Array, D: Array) -> None:
    for row in range(len(R)):
        for slot in range(atoms.shape[1]):
            code, atom = codes[row, slot], D[atoms[row, slot]]
            if code != 0:
                for j in range(R.shape[1]):
                    R[row, j] -= code * atom[j]


@in_order
def _pull(R: Array, atoms: Array, codes: Array, start: int, sums: Array) -> None:
    d = R.shape[1]
    for row in range(len(R)):
        for slot in range(atoms.shape[1]):
            code, atom = np.float64(codes[row, slot]), atoms[row, slot] - start
            if code != 0 and 0 <= atom < len(sums):
                for j in range(d):
                    sums[atom, j] += (code * np.float64(R[row, j]) + SHIFT) - SHIFT
                sums[atom, d] += (code * code + SHIFT) - SHIFT


@compiled
def _push(
    R: Array, atoms: Array, codes: Array, start: int, before: Array, after: Array, cosine: Array,
    threshold: float, nonnegative: bool,
) -> None:  # fmt: skip
    for row in range(len(R)):
        for slot in range(atoms.shape[1]):
            code, atom = codes[row, slot], atoms[row, slot] - start
            if code != 0 and 0 <= atom < len(before):
                fitted = code * cosine[atom]
                for j in range(R.shape[1]):
                    fitted += R[row, j] * after[atom, j]
                size = max(fitted if nonnegative else abs(fitted), threshold) - threshold
                fitted = np.float32(size if fitted > 0 else -size)
                for j in range(R.shape[1]):
                    R[row, j] += code * before[atom, j] - fitted * after[atom, j]
                codes[row, slot] = fitted
