"""Codes first, then the dictionary from two sums over them.

Mairal, Bach, Ponce & Sapiro, "Online learning for matrix factorization and sparse coding", JMLR 11, 2010,
Algorithm 1, with the forgetting of section 3.4.3.  Deviations: sums are weighted by rows, not batches, so
that the batch size does not change the optimum; signs are constrained; without a bound atoms are kept at
length 1, by scaling the sums with them; dead atoms are replaced.

Legend:  A (n, d)   Z (n, k)   D (k, d)   S = Z^T Z (k, k)   P = Z^T A (k, d)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from seminmf_lightning.core.memory import refuse_beyond_memory
from seminmf_lightning.core.processes import GROUP, AtomShares
from seminmf_lightning.core.sparse_codes import SparseCodes
from seminmf_lightning.core.sums import CodeStatistics, CodeSums
from seminmf_lightning.learners.coding import CodingLearner
from seminmf_lightning.learners.replacement import drawn_directions
from seminmf_lightning.learners.updates import fewest_rows, longest_wait, wait_after

FORGETTING = 5.0
"""Exponent r of the weight (1 - n / N)^r that old sums get when n rows make N in all (Mairal, section 3.4.3).
Of 2, 5, 10 and 30, on MiniLM, 5 and 10 had the lowest held-out objectives after an epoch."""
DENSE_FORGETTING, DENSE_STEPS = 20.0, 3
"""The same, and solver steps per update, where rows have codes for most atoms and sums are less noisy.  On
20,000 rows and 64 nonnegative factors, 5 and one step need 10 epochs for the error of these after 2."""
FEWEST_CODED, CODED_ENTRIES = 256, 2**20
"""Rows that are encoded together at least, and codes, zeros included, at most: all of them fit the cache."""
PAIR_BYTES = 20
"""Bytes per pair of atoms at the most: S, then its float32 copy or ``D D^T`` in float64 and float32."""
CANDIDATE_ROWS = 512
"""Rows of the sample of which the badly reconstructed ones replace dead atoms, or four for each."""
DEAD_ROWS = 10_000
"""An atom is dead after this many consecutive rows with a code of exactly zero."""


class OnlineLearner(CodingLearner):
    """Sparse (or least-squares) codes for each batch, then solver steps on (S, P)."""

    row_state: ClassVar[tuple[str, ...]] = ("rows",)

    update_rows: int
    pending: Any
    total: Any

    def reset(self) -> None:
        super().reset()
        concepts = self.recipe.nb_concepts
        self.shares = AtomShares.of(concepts, self.processes, whole=not self.recipe.solver.shares_atoms)
        if self.shares.idle and self.processes.rank == 0:
            warnings.warn(
                f"solver.shard=atoms shares out {concepts} atoms in groups of {GROUP}: "
                f"{self.shares.idle} of {self.processes.count} processes hold none; take fewer",
                stacklevel=2,
            )
        self.pending, self.total = self._empty_sums()
        self.update_rows = fewest_rows(concepts)
        self._asked = self._waiting = 0  # times that an update could have been; the same since the last one
        self._rows: list[Tensor] = []  # rows of this process since the last update
        self._coded: list[Any] = []  # the same rows with their codes; empty after a resume
        self.replaced = 0
        self._silent = torch.zeros(concepts, dtype=torch.float64)  # rows since each atom's last use
        self._error, self._unexplained = float("nan"), 0.0
        self._epoch_rows, self._epoch_objective, self._epoch_nonzeros = 0.0, 0.0, 0.0
        self._previous_objective: float | None = None
        self._converged = False

    def _empty_sums(self) -> tuple[CodeSums, CodeSums]:
        """Return what is added up over the rows since the last update, and over all rows."""
        shape = concepts, _ = self.recipe.nb_concepts, self.features
        own = self.shares.own.stop - self.shares.own.start
        refuse_beyond_memory(
            PAIR_BYTES * concepts * own, f"sums over pairs of nb_concepts={concepts:,} atoms",
            "lower nb_concepts, share them out over more processes (solver.shard=atoms), or take "
            "solver=ksvd, which has no such sums",
        )  # fmt: skip
        return CodeSums.empty(*shape), CodeStatistics.empty(*shape, own=own)

    def to_(self, device: torch.device) -> None:
        super().to_(device)
        self._silent = self._silent.to(device)

    def observe(self, A: Tensor, D: Tensor) -> None:
        rows, D = self._chosen(self.checked(A, D), D), self._taught(D)
        self._code_restored(D)
        for block in rows.split(max(FEWEST_CODED, CODED_ENTRIES // len(D))):
            Z = self.encode_for_training(block, D)
            codes = SparseCodes.of(Z)
            self.pending.add_rows_(block, codes, D)
            self._rows.append(block)
            self._coded.append(self._packed(block, Z, codes, D))

    def _chosen(self, A: Tensor, D: Tensor) -> Tensor:
        """Return what the update is to learn from normalised rows A."""
        return A

    def _taught(self, D: Tensor) -> Tensor:
        """Return D with the atoms alone that the update is to teach."""
        return D

    def _packed(self, A: Tensor, Z: Tensor, codes: SparseCodes, D: Tensor) -> Any:
        """Return what an update needs of rows and their codes."""
        return codes

    def _code_restored(self, D: Tensor) -> None:
        """Encode the rows of a checkpoint written between two updates."""
        if self._rows and not self._coded:
            (rows,), D = self._rows, self._taught(D)
            Z = self.encode_for_training(rows, D)
            self._coded = [self._packed(rows, Z, SparseCodes.of(Z), D)]

    def due(self) -> bool:
        """Count one more time that an update could come, and return whether it should."""
        if not self.recipe.encoder.sparse or self.recipe.solver.update_every is not None:
            return True
        self._asked, self._waiting = self._asked + 1, self._waiting + 1
        return self._waiting >= wait_after(self._asked, longest_wait(self.update_rows, self._epoch_size))

    def absorb(self) -> None:
        rows = float(self.pending.rows)
        if not rows:
            return
        self.rows_seen += self._rows_offered()
        forgetting = FORGETTING if self.recipe.encoder.sparse else DENSE_FORGETTING
        self.total.add_(self.pending, keep=(1 - rows / self.rows_seen) ** forgetting)
        self._add_products()
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
        self._waiting = 0

    def _add_products(self) -> None:
        """Add ``Z^T Z`` and ``Z^T A`` of the rows of all processes."""
        A, gram, cross = self._joined_rows(), self.total.gram, self.total.cross
        coded = self._coded or [SparseCodes.of(A)]
        codes = SparseCodes(*(torch.cat(parts) for parts in zip(*coded, strict=True)))
        if self._sums_are_fewer:
            own = gram.new_zeros(len(gram), gram.shape[1] + self.features)
            codes.add_products_(own[:, : len(gram)], own[:, len(gram) :], A)
            self.processes.add_(own)
            gram += own[:, : len(gram)]
            cross += own[:, len(gram) :]
        else:
            A, *parts = self.processes.gather(A, *codes)
            SparseCodes(*parts).add_products_(gram, cross, A, self.shares.own.start)
        self._rows, self._coded = [], []

    @property
    def _sums_are_fewer(self) -> bool:
        """Whether processes exchange products, there and back, rather than rows and codes: fewer bytes."""
        k, d = self.recipe.nb_concepts, self.features
        rows, nonzeros = float(self.pending.rows), float(self.pending.fired.sum())
        small = 2 * 8 * k * (k + d) < rows * (4 * d + 8) + 12 * nonzeros
        return self.processes.count > 1 and not self.shares.many and small

    def _joined_rows(self) -> Tensor:
        none = self.total.rows.new_zeros(0, self.features, dtype=self.dictionary_dtype)
        return torch.cat([none, *self._rows])

    def _rows_offered(self) -> int:
        """Return the rows since the last :meth:`absorb`, of all processes."""
        return int(self.pending.rows)

    def improve(self, D: Tensor) -> Tensor:
        rows = float(self.total.rows)
        if not rows:
            return D
        dead = (self._silent >= DEAD_ROWS).nonzero()[:, 0]
        directions = self._new_directions(D, len(dead)) if len(dead) else None
        S, P = (torch.div(x, rows, out=D.new_empty(x.shape)) for x in (self.total.gram, self.total.cross))
        for _ in range(1 if self.recipe.encoder.sparse else DENSE_STEPS):
            D = self.solver_step(D, S, P, **({"shares": self.shares} if self.shares.many else {}))
        if not self.recipe.bounded:
            D = self._with_unit_atoms(D)
        self._updates += 1
        self._encode = None
        return D if directions is None else self._replaced(D, dead[: len(directions)], directions)

    def _with_unit_atoms(self, D: Tensor) -> Tensor:
        """Scale atoms to length 1 and the sums with them, as if codes had been scaled inversely."""
        lengths = D.double().norm(dim=1)
        lengths = torch.where(lengths > 0, lengths, 1.0)
        own = lengths[self.shares.own, None]
        self.total.gram *= own * lengths
        self.total.cross *= own
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

    def _new_directions(self, D: Tensor, count: int) -> Tensor:
        """Return directions of at most ``count`` badly reconstructed rows of the sample.

        Rows are drawn by squared error from the seed, so that every process makes the same choice.  Codes are
        those of D before its step, whose Gram matrix is at hand.
        """
        sample = self.sample[:: max(1, len(self.sample) // max(CANDIDATE_ROWS, 4 * count))]
        residual = sample - self.encode_for_training(sample, D) @ D
        return drawn_directions(residual, count, self.recipe.constraint, self.recipe.seed + self._updates)

    def _replaced(self, D: Tensor, dead: Tensor, directions: Tensor) -> Tensor:
        """Give dead atoms new directions; their sums and counters are reset."""
        D = D.clone()
        D[dead] = directions
        atoms = self.shares.own
        own = dead[(dead >= atoms.start) & (dead < atoms.stop)] - atoms.start
        self.total.gram[own], self.total.gram[:, dead], self.total.cross[own] = 0.0, 0.0, 0.0
        self._silent[dead] = 0.0
        self.replaced = (self.replaced or 0) + len(dead)
        return D

    def drop_own_rows(self) -> None:
        super().drop_own_rows()
        self._rows, self._coded = [], []

    def state_dict(self) -> dict[str, Any]:
        state = {key: getattr(self, name) for key, name in STATE.items()}
        state["tuner"] = {} if self.tuner is None else self.tuner.state_dict()
        return state | {
            "total": self.total.tensors(),
            "pending": self.pending.tensors(),
            "silent": self._silent,
            "rows": self._joined_rows(),
        }

    def whole_state(
        self, state: dict[str, Any], join: Callable[[Tensor, AtomShares], Tensor]
    ) -> dict[str, Any]:
        if not self.shares.many:
            return state
        total = {name: join(x, self.shares) if name in SHARED else x for name, x in state["total"].items()}
        return state | {"total": total}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for key, name in STATE.items():
            setattr(self, name, state[key])
        self.effort = tuple(self.effort)
        if self.tuner is not None:
            self.tuner.load_state_dict(state["tuner"])
        own = self.shares.own
        self.total.load_({name: x[own] if name in SHARED else x for name, x in state["total"].items()})
        self.pending.load_(state["pending"])
        self._silent = state["silent"].to(self._silent.device)
        rows = state["rows"].to(self._silent.device)
        self._rows, self._coded = [rows] if len(rows) else [], []
        self._encode = None


STATE = {name: name for name in ("rows_seen", "replaced", "effort", "_updates", "_error", "_unexplained",
                                 "_previous_objective", "_converged", "_asked",
                                 "_waiting")} | {
    "_settled_at": "_calibrated_at", "_pass_rows": "_epoch_rows", "_pass_objective": "_epoch_objective",
    "_pass_nonzeros": "_epoch_nonzeros",
}  # fmt: skip
"""Key in a checkpoint (fixed since the first release): attribute."""
SHARED = ("gram", "cross")
"""Sums of which each process may hold the rows of its own atoms."""
