"""Semi-NMF in one call, for rows in memory or from a DataLoader.

Legend:  A (n, d) activations   Z (n, k) codes   D (k, d) dictionary
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from seminmf_lightning.core.checks import real_number, whole_number
from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.encoders import Effort, Encode
from seminmf_lightning.learners import Learner, Recipe, make_learner

if TYPE_CHECKING:
    from typing_extensions import Self

Activations = Tensor | np.ndarray | DataLoader
SAMPLE_ROWS = 16_384
BLOCK_ROWS = 8_192


class SemiNMF:
    """``A ~ Z D`` with ``D >= 0`` and Z free in sign (Ding, Li & Jordan, TPAMI 2010, with X = A, F = Z, G =
    D^T).

    ``min over D >= 0 of (1/n) sum_i min_z 1/2 ||a_i - z D||^2 + l1_penalty ||z||_1``; with l1_penalty > 0
    every atom has ``||D_j||_2 <= 1``, and ``a`` is divided by the mean row norm first, which :meth:`decode`
    undoes.  With l1_penalty = 0 codes and dictionary are in data units, ``A ~ Z D`` as it stands.

    Args:
        nb_concepts: k.
        solver: ``mu``, ``pgd`` or ``hals``, or a mapping with a ``name`` and settings; mu needs l1_penalty =
            0.
        device: where the work is done.
        tol: relative decrease of the objective below which :meth:`fit` stops.
        l1_penalty: weight of ``||z||_1``.
        target_l0: instead of l1_penalty, the mean nonzeros a row that the penalty is tuned to.
        verbose: print the loss as it falls.
        seed: of the starting dictionary and the order of rows.
        init: of the dictionary: ``random``, ``data``, ``svd``, or a mapping with a ``name`` and settings.
        encoder: ``auto``, ``least_squares``, ``lasso`` or ``omp``, or a mapping likewise.
        normalize: ``scale`` rows to a mean norm of 1, ``center`` and scale them, or ``none``.

    Attributes:
        iterations: what the last :meth:`fit` took, of its ``max_iter``; 0 where the start was as good as it
            gets.

    Raises:
        TypeError: an argument of a wrong type.
        ValueError: an argument out of range.
    """

    def __init__(
        self, nb_concepts: int = 64, solver: str | Mapping[str, Any] = "mu", device: str | torch.device = "cpu",
        tol: float = 1e-4, l1_penalty: float = 0.0, verbose: bool = False, seed: int = 0, *,
        init: str | Mapping[str, Any] = "data", encoder: str | Mapping[str, Any] = "auto", normalize: str = "scale",
        target_l0: float | None = None,
    ) -> None:  # fmt: skip
        self.recipe = Recipe(
            nb_concepts=nb_concepts, solver=solver, tol=tol, l1_penalty=l1_penalty, seed=seed,
            init=init, encoder=encoder, normalize=normalize, target_l0=target_l0,
        )  # fmt: skip
        self.device = torch.device(device)
        self.verbose = bool(verbose)
        self.encoder, self.settings = self.recipe.encoder, self.recipe.plain()
        self.D: Tensor | None = None
        self.normalizer = Normalizer()
        self.effort: Effort = ()
        self.iterations = 0

    def fit(self, A: Activations, max_iter: int = 500) -> tuple[Tensor, Tensor]:
        """Learn D, and return ``Z (n, k), D (k, d)``.

        Args:
            A: rows (n, d): a tensor or array of floats or integers, or a DataLoader of batches of rows.
                Codes of a DataLoader come in the order in which it gives its rows when asked once more.
            max_iter: most solver steps (l1_penalty = 0), or passes over the rows (l1_penalty > 0).

        Raises:
            TypeError: A is of another kind.
            ValueError: A is not 2-D, empty, holds NaN or Inf (the row is named), or has fewer than k rows.
        """
        whole_number("max_iter", max_iter, 1)
        A = A if isinstance(A, DataLoader) else self.sanitize_np_input(A)
        sample = self._sample(A)
        if len(sample) < self.recipe.nb_concepts and (isinstance(A, Tensor) or len(sample) < SAMPLE_ROWS):
            raise ValueError(
                f"nb_concepts={self.recipe.nb_concepts} is more than the {len(sample)} rows; lower it"
            )
        learner = make_learner(self.recipe, sample.shape[1])
        learner.to_(self.device)
        self.iterations = 0
        D = learner.initialise(sample)
        D = (
            self._one_pass(learner, D, A, max_iter)
            if learner.single_epoch
            else self._passes(learner, D, A, max_iter)
        )
        self.normalizer, self.effort = learner.normalizer, learner.effort
        self.encoder, self.settings = learner.encoder, learner.plain_recipe()
        if (
            not self.recipe.bounded
        ):  # the scale can go into the atoms: as a power of two, which rounds none of their entries
            exponent = round(math.log2(self.normalizer.scale))
            D, self.normalizer = (
                D * 2.0 ** min(max(exponent, -100), 100),
                Normalizer(1.0, self.normalizer.mean),
            )
        self.D = D.to(sample.dtype)
        Z = (
            self.encode(A)
            if isinstance(A, Tensor)
            else torch.cat([self.encode(rows) for rows in self._batches(A)])
        )
        return Z, self.get_dictionary()

    def encode(self, A: Activations, max_iter: int = 300, tol: float | None = None) -> Tensor:
        """Codes Z (n, k) for the learned dictionary; the same rows give the same codes every time.

        Args:
            A: rows (n, d), as for :meth:`fit`.
            max_iter: most iterations of the lasso (l1_penalty > 0); least squares (l1_penalty = 0) are solved
                in one step.
            tol: of the lasso, relative duality gap of a row.
        """
        encode = self._encode(max_iter, tol)
        if isinstance(A, DataLoader):
            return torch.cat(
                [encode(self.normalizer.apply(self._of_width(rows))) for rows in self._batches(A)]
            )
        return encode(self.normalizer.apply(self._of_width(self.sanitize_np_input(A))))

    def evaluate(self, A: Activations) -> dict[str, float]:
        """The figures of :class:`~seminmf_lightning.metrics.ReconstructionMetrics` on rows A (n, d), by name;
        those of a run's ``metrics.json`` on its held-out rows.

        Raises:
            TypeError, ValueError: as :meth:`fit`.
        """
        from seminmf_lightning.metrics import (
            ReconstructionMetrics,
            in_data_units,
        )  # torchmetrics takes a second to load

        D, encode = self.get_dictionary(), self._encode()
        metrics = ReconstructionMetrics(D.shape[0], D.shape[1], self.settings["l1_penalty"]).to(self.device)
        for rows in self._batches(A if isinstance(A, DataLoader) else self.sanitize_np_input(A)):
            rows = self.normalizer.apply(self._of_width(rows))
            Z = encode(rows)
            metrics.update(rows, Z @ D.to(Z), Z)
        return in_data_units(metrics.compute(), self.normalizer.scale)

    def decode(self, Z: Tensor | np.ndarray) -> Tensor:
        """Rows (n, d) in data units: ``scale * (Z D) + mean``."""
        codes = self.sanitize_np_codes(Z)
        return self.normalizer.undo(codes @ self.get_dictionary().to(codes))

    def get_dictionary(self) -> Tensor:
        """D (k, d), nonnegative.

        Raises:
            RuntimeError: nothing has been learned or loaded yet.
        """
        if self.D is None:
            raise RuntimeError("no dictionary yet: call fit(A), or SemiNMF.load(path)")
        return self.D

    def init_random_z(self, A: Tensor | np.ndarray) -> Tensor:
        """Random codes (n, k), free in sign, from the seed."""
        rows = self.sanitize_np_input(A)
        generator = torch.Generator().manual_seed(self.recipe.seed)
        Z = torch.randn(rows.shape[0], self.recipe.nb_concepts, generator=generator)
        return Z.to(rows)

    def init_random_d(self, A: Tensor | np.ndarray, Z: Tensor | np.ndarray) -> Tensor:
        """Random nonnegative dictionary (k, d) from the seed, of the length that suits codes Z best: atoms of
        one norm ``max(0, <A, Z U> / ||Z U||^2)``, with U unit atoms uniform in (0, 1]."""
        rows, codes = self.sanitize_np_input(A), self.sanitize_np_codes(Z)
        generator = torch.Generator().manual_seed(self.recipe.seed)
        U = unit_atoms(1 - torch.rand(codes.shape[1], rows.shape[1], generator=generator)).to(rows)
        product = codes.to(rows) @ U
        length = (rows * product).sum().abs() / product.square().sum().clamp(min=torch.finfo(rows.dtype).tiny)
        return U * length

    def sanitize_np_input(self, x: Tensor | np.ndarray) -> Tensor:
        """Rows as a float32 or float64 tensor on the device, checked: 2-D, not empty, finite."""
        rows = self._tensor("A", x)
        if 0 in rows.shape:
            raise ValueError(f"A is empty: its shape is {tuple(rows.shape)}")
        bad = (~rows.isfinite()).any(dim=1).nonzero()[:, 0]
        if len(bad):
            raise ValueError(
                f"A: row {int(bad[0])} holds NaN or Inf ({len(bad)} such rows); every number must be finite"
            )
        return rows

    def sanitize_np_codes(self, z: Tensor | np.ndarray) -> Tensor:
        """Codes as a float32 or float64 tensor on the device, checked: 2-D, k columns."""
        codes = self._tensor("Z", z)
        if codes.shape[1] != self.recipe.nb_concepts:
            raise ValueError(f"Z has {codes.shape[1]} columns, but nb_concepts={self.recipe.nb_concepts}")
        return codes

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write dictionary, scale, mean and every setting to one ``.safetensors`` file."""
        from seminmf_lightning.dictionary_file import save_dictionary

        save_dictionary(path, self.get_dictionary(), self.normalizer, self.settings, self.effort)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Self:
        """From a file of :meth:`save`, a run's ``dictionary.safetensors``, or the run directory.

        Raises:
            FileNotFoundError, ValueError: it is not there, or not such a file.
        """
        from seminmf_lightning.dictionary_file import load_dictionary

        exported = load_dictionary(path)
        model = cls(
            **{name: value for name, value in exported.settings.items() if name != "statistics"},
            device=device,
        )
        model.D, model.effort = exported.D.to(model.device), exported.effort
        model.normalizer = exported.normalizer.to(model.device)
        return model

    def to(self, device: str | torch.device) -> SemiNMF:
        """Move the model."""
        self.device = torch.device(device)
        self.D = None if self.D is None else self.D.to(self.device)
        self.normalizer = self.normalizer.to(self.device)
        return self

    def _encode(self, max_iter: int = 300, tol: float | None = None) -> Encode:
        whole_number("max_iter", max_iter, 1)
        if tol is not None:
            real_number("tol", tol, 0)
        return self.encoder.with_limits(max_iter, tol).precise(self.get_dictionary(), self.effort)

    def _of_width(self, rows: Tensor) -> Tensor:
        if rows.shape[1] != self.get_dictionary().shape[1]:
            raise ValueError(
                f"rows have {rows.shape[1]} features, the dictionary has {self.get_dictionary().shape[1]}"
            )
        return rows

    def _one_pass(self, learner: Learner, D: Tensor, A: Tensor | DataLoader, max_iter: int) -> Tensor:
        for rows in self._batches(A, BLOCK_ROWS):
            learner.observe(rows, D)
            learner.absorb()
        D = learner.end_epoch(D)
        for step in range(max_iter):
            if learner.converged():
                break
            D = learner.improve(D)
            self.iterations = step + 1
            if self.verbose and (step + 1) % 10 == 0:
                gap = learner.optimality_gap(D)
                print(f"step {step + 1}: loss {learner.mean_squared_error(D):.6g}, optimality gap {gap:.3g}")
        return D

    def _passes(self, learner: Learner, D: Tensor, A: Tensor | DataLoader, max_iter: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.recipe.seed)
        for done in range(max_iter):
            if learner.converged():
                break
            shuffled = A[torch.randperm(len(A), generator=generator)] if isinstance(A, Tensor) else A
            for rows in self._batches(shuffled, learner.update_rows or BLOCK_ROWS):
                learner.observe(rows, D)
                learner.absorb()
                D = learner.improve(D)
            D = learner.end_epoch(D)
            self.iterations = done + 1
            if self.verbose:
                print(f"pass {done + 1}: loss {learner.mean_squared_error(D):.6g}")
        return D

    def _sample(self, A: Tensor | DataLoader) -> Tensor:
        if isinstance(A, Tensor):
            chosen = torch.randperm(len(A), generator=torch.Generator().manual_seed(self.recipe.seed))[
                :SAMPLE_ROWS
            ]
            return A[chosen.sort().values]
        parts: list[Tensor] = []
        for rows in self._batches(A):
            parts.append(rows)
            if sum(map(len, parts)) >= SAMPLE_ROWS:
                break
        if not parts:
            raise ValueError("the DataLoader gave no batch")
        return torch.cat(parts)[:SAMPLE_ROWS]

    def _batches(self, A: Tensor | DataLoader, size: int = BLOCK_ROWS) -> Iterator[Tensor]:
        if isinstance(A, Tensor):
            yield from A.split(size)
            return
        batches: Iterable[Any] = A
        for batch in batches:
            yield self.sanitize_np_input(batch[0] if isinstance(batch, list | tuple) else batch)

    def _tensor(self, name: str, x: Tensor | np.ndarray) -> Tensor:
        if isinstance(x, np.ndarray):
            if x.dtype.kind not in "fiub":
                raise TypeError(f"{name} must hold float or integer numbers, got dtype {x.dtype}")
            double = x.dtype.itemsize >= 8 and x.dtype.kind == "f"
            x = torch.from_numpy(np.array(x, dtype=np.float64 if double else np.float32))
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a tensor, an ndarray or a DataLoader, got {type(x).__name__}")
        if x.is_complex():
            raise TypeError(f"{name} must hold real numbers, got {x.dtype}")
        if x.ndim != 2:
            raise ValueError(f"{name} must be 2-D (rows, columns), got {x.ndim}-D {tuple(x.shape)}")
        x = x.detach().to(self.device)
        return x if x.dtype in (torch.float32, torch.float64) else x.float()
