"""Sparse codes for the rows of an update, then sweeps of :mod:`~seminmf_lightning.solvers.ksvd` over them.

Early on, a given penalty is higher than in the end, and atoms that are idle, repeated or (if asked for)
weak get the direction of a residual; in the last part of training each atom averages over more rows.  The
rows of an update stay where they are: processes exchange sums over them.

Legend:  A (n, d)   Z (n, k)   D (k, d) unit atoms   R (n, d) residuals
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.core.sparse_codes import SparseCodes
from seminmf_lightning.core.sums import CodeSums, round_to_grid_
from seminmf_lightning.encoders import Penalised
from seminmf_lightning.encoders.active_set import gram, solve_on_support
from seminmf_lightning.learners.coarse import UNTIL, first_fine_atoms, left_over, only
from seminmf_lightning.learners.online import OnlineLearner
from seminmf_lightning.learners.penalty import HIGHEST, LOWEST
from seminmf_lightning.learners.replacement import new_directions, weaker_duplicates
from seminmf_lightning.solvers.ksvd import GRID, SparseRows

UPDATE_ROWS = 8192
"""Rows per update.  On 80,000 rows of MiniLM (k = 1,024, 16 nonzeros) the same rows in updates of 2,048 lose
0.006 of r2."""
MOST_CODES = 64
"""Codes of a row that move atoms, at most, where neither ``trim`` nor ``target_l0`` says how many."""
COARSE_CODES = 8
"""Most codes of a row that coarse atoms explain, where ``trim`` does not say."""
SHARE_OF_ROWS = 0.7
"""Random share of the rows that an update uses where all rows enter every update: without such noise planted
atoms stay in bad optima (.59 found instead of .95)."""
AVERAGE_FROM, WINDOW = 0.7, 10
"""Part of training after which atoms average over this many updates, at most over one epoch."""
FALL, FIRST_PENALTY = 10.0, 0.14
"""If ``l1_penalty`` is given, it falls from this multiple, or from the second number if that is less."""
GAIN = 0.5
"""Exponent with which the penalty follows the nonzeros of an update."""
SHRINK = 0.5
"""Share of the penalty that codes shrink by between the sweeps."""
REPLACE_EVERY, MOST_REPLACED = 4, 0.2
"""Updates between replacements of weak atoms, and the largest share of them that is replaced at once."""
FEWEST_CODES = 3
"""Codes in an update below which an atom is idle."""
DUPLICATE, COHERENT_DUPLICATE = 0.6, 0.95
"""Cosine above which the weaker of two atoms is replaced; nonnegative atoms are similar by nature."""
CANDIDATE_ROWS = 2048
"""Rows of the sample whose residuals give new directions, or twice as many as there are atoms to replace."""


@dataclass
class SizedSums(CodeSums):
    """The same, with the sizes of the codes of each atom."""

    sizes: Tensor  # (k,) sums of |z_j|
    offered: Tensor  # () rows, with those that the update leaves out

    @staticmethod
    def _shapes(concepts: int, features: int, own: int) -> tuple[tuple[int, ...], ...]:
        return (*CodeSums._shapes(concepts, features, own), (concepts,), ())

    def _add_codes_(self, concept: Tensor, code: Tensor) -> None:
        super()._add_codes_(concept, code)
        self.sizes += torch.bincount(concept, round_to_grid_(code.abs(), GRID), minlength=len(self.sizes))


class KSVDLearner(OnlineLearner):
    """Rows and their codes since the last update, and what each atom remembers of earlier ones."""

    sample_rows: ClassVar[int] = 16_384

    def reset(self) -> None:
        super().reset()
        coarse, k = self.recipe.solver.coarse, self.recipe.nb_concepts
        if coarse >= k:
            raise ValueError(f"solver.coarse={coarse} must be less than nb_concepts={k}")
        self.update_rows = self._usual_rows = max(UPDATE_ROWS, self.recipe.nb_concepts)
        self._planned: int = self.recipe.solver.updates * self._usual_rows
        self._penalty: float = self.recipe.l1_penalty
        self._memory = torch.zeros(self.recipe.nb_concepts, self.features, dtype=torch.float64)
        self._fine = False  # whether the coarse atoms are done, and the others learn
        self._last: SizedSums | None = None  # sums over the rows of the update, of all processes

    def to_(self, device: torch.device) -> None:
        super().to_(device)
        self._memory = self._memory.to(device)

    def _empty_sums(self) -> tuple[CodeSums, CodeSums]:
        shape = self.recipe.nb_concepts, self.features
        return SizedSums.empty(*shape), SizedSums.empty(*shape)

    def attach_sample(
        self, sample: Tensor, normalizer: Normalizer | None = None, *, held_out: Tensor | None = None,
        rows: int | None = None, epochs: int | None = None,
    ) -> None:  # fmt: skip
        super().attach_sample(sample, normalizer, held_out=held_out, rows=rows, epochs=epochs)
        most = max(UPDATE_ROWS, self.recipe.nb_concepts)
        self.update_rows = self._usual_rows = min(most, rows or most)
        updates: int = self.recipe.solver.updates
        self._planned = updates * self.update_rows
        if rows is not None and epochs is not None and rows * epochs < self._planned:
            self._planned = rows * epochs
            if 2 * self._planned < updates * self.update_rows:
                warnings.warn(
                    f"{epochs} epochs of {rows:,} rows make {-(-self._planned // self.update_rows)} updates, "
                    f"less than half of solver.updates={updates}: raise trainer.max_epochs to "
                    f"{-(-updates * self.update_rows // rows)}, or lower solver.updates",
                    stacklevel=2,
                )

    def prepare(self, D: Tensor) -> Tensor:
        D = unit_atoms(super().prepare(D))
        self._penalty = self.penalty
        return D

    @property
    def progress(self) -> float:
        """Share of the planned rows that have been seen, at most 1."""
        return min(1.0, self.rows_seen / self._planned)

    @property
    def stage(self) -> float:
        """Progress of the atoms that learn now: coarse atoms have a schedule of their own."""
        if not self.recipe.solver.coarse:
            return self.progress
        return (self.progress - UNTIL) / (1 - UNTIL) if self._fine else min(1.0, self.progress / UNTIL)

    @property
    def training_penalty(self) -> float:
        if self.tuner is not None:
            return self._penalty
        last: float = self.recipe.l1_penalty
        first = max(last, min(FALL * last, FIRST_PENALTY))
        return last * float((first / last) ** (1 - min(1.0, self.progress / AVERAGE_FROM))) if last else 0.0

    @property
    def _learning(self) -> slice:
        """The atoms that learn now."""
        k, coarse = self.recipe.nb_concepts, self.recipe.solver.coarse
        return slice(coarse, k) if self._fine or not coarse else slice(0, coarse)

    def _left(self, A: Tensor, D: Tensor) -> Tensor:
        """Return what the atoms that learn now are to explain of normalised rows."""
        if not self._fine:
            return A
        solver = self.recipe.solver
        most = max(1, min(solver.trim or COARSE_CODES, solver.coarse // 4))  # more would explain any row
        return left_over(A, D[: solver.coarse], most, self.recipe.constraint)

    def _rows_offered(self) -> int:
        return int(self.pending.offered)

    def _follow(self, nonzeros: float) -> None:
        """Move the penalty of training towards the target of nonzeros."""
        super()._follow(nonzeros)
        if self.tuner is not None:
            self._penalty *= max(nonzeros / self.tuner.target, 0.1) ** GAIN
            self._penalty = min(max(self._penalty, LOWEST), HIGHEST)

    def _tune(self, D: Tensor, *, roughly: bool = False) -> None:
        if self.tuner is not None and self.rows_seen and self.progress < AVERAGE_FROM:
            self.tuner.penalty = self._penalty  # a search pays off once atoms are nearly settled
        else:
            super()._tune(D, roughly=roughly)

    def converged(self) -> bool:
        """Whether the planned updates are done."""
        return self.rows_seen >= self._planned

    def observe(self, A: Tensor, D: Tensor) -> None:
        super().observe(A, D)
        self.pending.offered += len(A)

    def due(self) -> bool:
        return True

    def _chosen(self, A: Tensor, D: Tensor) -> Tensor:
        noisy = self._epoch_size == self.update_rows and self.progress < AVERAGE_FROM
        return self._left(A[self._drawn(A)] if noisy else A, D)

    def _taught(self, D: Tensor) -> Tensor:
        return only(D, self._learning)

    def _packed(self, A: Tensor, Z: Tensor, codes: SparseCodes, D: Tensor) -> SparseRows:
        return SparseRows.of(A, Z, D, self._most(Z))

    def _add_products(self) -> None:
        pass  # rows stay with their process until the update

    def _drawn(self, rows: Tensor) -> Tensor:
        """Return a random mask (n,) that depends on the numbers of each row and on the update alone."""
        generator = torch.Generator().manual_seed(self.recipe.seed + self._updates)
        direction = torch.randn(self.features, generator=generator, dtype=torch.float64).to(rows.device)
        draw = (rows.double() @ direction) * 2**20
        return draw - draw.floor() < SHARE_OF_ROWS

    def _most(self, Z: Tensor) -> int:
        solver, target = self.recipe.solver, self.recipe.target_l0
        most = solver.trim or (MOST_CODES if target is None else max(1, round(target)))
        return min(most, max(1, int((Z != 0).sum(dim=1).max()))) if len(Z) else 1

    def absorb(self) -> None:
        if float(self.pending.rows):
            copies = {name: tensor.clone() for name, tensor in self.pending.tensors().items()}
            self._last = SizedSums(**copies)
        super().absorb()

    def improve(self, D: Tensor) -> Tensor:
        last, self._last = self._last, None
        if last is None:
            return D
        self._code_restored(D)
        rows = SparseRows.joined(self._coded, self._joined_rows())
        averaging = self.stage >= AVERAGE_FROM
        every = REPLACE_EVERY // 2 if self.recipe.solver.coarse else REPLACE_EVERY  # two shorter parts
        if self._updates and self._updates % every == 0 and not averaging:
            D = self._replace_weak(D, rows, last)
        window = usual = self._usual_rows
        if averaging:
            window = max(usual, min(WINDOW * usual, self._epoch_size or WINDOW * usual))
        shrink = SHRINK * self.training_penalty if isinstance(self.recipe.encoder, Penalised) else 0.0
        D, self._memory = self.recipe.solver.improve(
            rows, D, self._memory, keep=max(0.0, 1 - float(last.offered) / window), threshold=shrink,
            constraint=self.recipe.constraint, add_=self.processes.add_,
        )  # fmt: skip
        self._updates += 1
        self._encode = None
        self.drop_own_rows()
        if self.recipe.solver.coarse and not self._fine and self.progress >= UNTIL:
            self._fine = True
            left = self._left(self.sample, D)
            D = first_fine_atoms(D, self.recipe.solver.coarse, left, self.recipe.seed, self.recipe.constraint)
        return D

    def _replace_weak(self, D: Tensor, rows: SparseRows, last: SizedSums) -> Tensor:
        """Give idle, repeated and some weak atoms new directions; they take part from the next update on."""
        signs, learning = self.recipe.constraint, self._learning
        k = learning.stop - learning.start
        idle = last.fired < min(FEWEST_CODES, 1 + float(last.rows) / k)
        strength = torch.where(idle, -1.0, last.sizes / last.fired.clamp(min=1))
        others = torch.ones_like(idle)
        others[learning] = False
        strength[others] = torch.inf
        cosine = COHERENT_DUPLICATE if signs.nonnegative_atoms else DUPLICATE
        repeated = weaker_duplicates(D, strength, cosine, sign_is_free=signs.sign_is_free)
        strength = torch.where(repeated, -1.0, strength)
        share = self.recipe.solver.replace * (1 - self.stage / AVERAGE_FROM)
        wanted = max(int((strength < 0).sum()), int(share * k))
        if not wanted:
            return D
        count = min(wanted, max(1, int(MOST_REPLACED * k)))
        generator = torch.Generator().manual_seed(self.recipe.seed + self._updates)
        chosen = torch.randperm(len(self.sample), generator=generator)[: max(CANDIDATE_ROWS, 2 * count)]
        sample, E = self._left(self.sample[chosen.to(D.device)], D), only(D, learning)
        Z = solve_on_support(
            self._training_encode(E)(sample), (sample.double() @ E.double().T).to(E), E, gram(E), 0.0,
            keep_signs=signs.nonnegative_codes,
        )  # fmt: skip
        residual = sample.double() - Z.double() @ E.double()
        directions = new_directions(residual, count, self.training_penalty, signs).to(D)
        weak = torch.sort(strength, stable=True).indices[: len(directions)]
        rows.drop_(weak, D)
        D = D.clone()
        D[weak], self._memory[weak] = directions, 0.0
        self.replaced = (self.replaced or 0) + len(weak)
        return D

    def state_dict(self) -> dict[str, Any]:
        own = {"memory": self._memory, "penalty": float(self._penalty), "planned": self._planned}
        return super().state_dict() | own | {"fine": self._fine}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._memory = state["memory"].to(self._memory.device)
        self._penalty, self._planned = float(state["penalty"]), int(state["planned"])
        self._fine = bool(state.get("fine", False))
