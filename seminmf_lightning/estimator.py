"""Semi-NMF in one call, for rows in memory or from a DataLoader.

Legend:  A (n, d) activations   Z (n, k) codes   D (k, d) dictionary
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from seminmf_lightning.core.checks import real_number, whole_number
from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.core.rows import RowsInMemory, RowsOfLoader, as_floats, finite, real_matrix
from seminmf_lightning.encoders import Effort, Encode
from seminmf_lightning.learners import Recipe, make_learner
from seminmf_lightning.learners.in_memory import BLOCK_ROWS, learn_exact, learn_online

if TYPE_CHECKING:
    from typing_extensions import Self

Activations = Tensor | np.ndarray | DataLoader
Rows = RowsInMemory | RowsOfLoader
SAMPLE_ROWS = 16_384


class SemiNMF:
    """``A ~ Z D`` with ``D >= 0`` and Z free in sign, or as ``nonnegative`` says.

    ``min over D >= 0 of (1/n) sum_i min_z 1/2 ||a_i - z D||^2 + l1_penalty ||z||_1``; with l1_penalty > 0
    every atom has ``||D_j||_2 <= 1``, and ``a`` is first divided by the mean row norm, which :meth:`decode`
    undoes.  With l1_penalty = 0 codes and dictionary are in data units, ``A ~ Z D`` as it stands.  Ding, Li &
    Jordan, "Convex and Semi-Nonnegative Matrix Factorizations", TPAMI 32(1), 2010 (X = A, F = Z, G = D^T).

    Args:
        nb_concepts: k.
        solver: ``mu``, ``pgd``, ``hals`` or ``ksvd``, or a mapping with a ``name`` and settings; None for
            ``mu`` without and ``hals`` with a penalty.
        device: where to compute.
        tol: relative decrease of the objective below which :meth:`fit` stops.
        l1_penalty: weight of ``||z||_1``.
        verbose: print the loss during :meth:`fit`.
        seed: seed of the initial dictionary and the order of rows.
        settings: the other settings of :class:`~seminmf_lightning.learners.Recipe`: ``nonnegative``
            (``dictionary``, ``codes``, ``both`` or ``none``), ``init``, ``encoder``, ``normalize``,
            ``target_l0``, ``statistics``.

    Attributes:
        iterations: solver steps (or epochs) of the last :meth:`fit`, at most ``max_iter``; 0 if the initial
            dictionary was optimal.
        network: the model and layer that a loaded run's rows come from; None if that is not known.
        labels: texts by concept, saved with the model; a run's are typed in its report, else automatic.

    Raises:
        TypeError: an unknown argument, or one of a wrong type.
        ValueError: an argument out of range.

    >>> A = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    >>> model = SemiNMF(nb_concepts=4, l1_penalty=0.1)
    >>> Z, D = model.fit(A, max_iter=5)
    >>> Z.shape, D.shape, bool((D >= 0).all())
    (torch.Size([100, 4]), torch.Size([4, 8]), True)
    >>> torch.equal(model.encode(A), Z)
    True
    """

    def __init__(
        self, nb_concepts: int = 64, solver: str | Mapping[str, Any] | None = None,
        device: str | torch.device = "cpu", tol: float = 1e-4, l1_penalty: float = 0.0, verbose: bool = False,
        seed: int = 0, **settings: Any,
    ) -> None:  # fmt: skip
        settings |= {"nb_concepts": nb_concepts, "solver": solver, "tol": tol}
        self.recipe = Recipe.from_settings(settings | {"l1_penalty": l1_penalty, "seed": seed})
        self.device, self.verbose = torch.device(device), bool(verbose)
        self.encoder, self.settings = self.recipe.encoder, self.recipe.plain()
        self.D: Tensor | None = None
        self.normalizer, self.iterations = Normalizer(), 0
        self.effort: Effort = ()
        self.network: dict[str, Any] | None = None
        self.labels: dict[int, str] = {}

    def fit(self, A: Activations, max_iter: int = 500) -> tuple[Tensor, Tensor]:
        """Learn D, and return ``Z (n, k), D (k, d)``.

        Args:
            A: rows (n, d): a tensor or array of floats or integers, or a DataLoader of batches of rows.  A
                DataLoader is iterated once per epoch and once more for the codes, which come in the order of
                that iteration.
            max_iter: limit of solver steps (l1_penalty = 0) or epochs (l1_penalty > 0).

        Raises:
            TypeError: A is of another kind.
            ValueError: A is not 2-D, empty, holds NaN, Inf or masked entries (the row is named), has fewer
                than k rows, or is a DataLoader that gives no rows when it is iterated again.
        """
        whole_number("max_iter", max_iter, 1)
        rows, k = self._rows(A), self.recipe.nb_concepts
        sample = rows.sample(SAMPLE_ROWS, self.recipe.seed)
        if len(sample) < min(k, SAMPLE_ROWS):
            raise ValueError(f"nb_concepts={k} is more than the {len(sample)} rows; lower it")
        learner = make_learner(self.recipe, sample.shape[1])
        learner.to_(self.device)
        self.network, self.labels = None, {}
        D = learner.initialise(sample, rows=rows.n_rows, epochs=max_iter)
        train = learn_exact if learner.single_epoch else learn_online
        D, self.iterations = train(learner, D, rows, max_iter, self.verbose)
        self.normalizer, self.effort = learner.normalizer, learner.effort
        self.encoder, self.settings = learner.encoder, learner.plain_recipe()
        if not self.recipe.bounded:
            # The scale can go into the atoms: as a power of two, which rounds none of their entries.
            exponent = round(math.log2(self.normalizer.scale))
            D = D * 2.0 ** min(max(exponent, -100), 100)
            self.normalizer = Normalizer(1.0, self.normalizer.mean)
        self.D = D.to(sample.dtype)
        return self._codes(rows), self.D

    def encode(self, A: Activations, max_iter: int = 300, tol: float | None = None) -> Tensor:
        """Return codes Z (n, k) for the learned dictionary; the same rows always give the same codes.

        Args:
            A: rows (n, d) as in :meth:`fit`.
            max_iter: limit of iterations of an encoder that iterates.
            tol: relative duality gap per row of the lasso; the encoder's own if None.
        """
        return self._codes(self._rows(A).require_finite(), max_iter, tol)

    def evaluate(self, A: Activations) -> dict[str, float]:
        """Return the metrics of ``metrics.json`` by name, on rows A (n, d); errors as :meth:`fit`."""
        from seminmf_lightning.metrics import ReconstructionMetrics, in_data_units  # slow to load

        D, encode = self.get_dictionary(), self._encoding()
        metrics = ReconstructionMetrics(D.shape[0], D.shape[1], self.settings["l1_penalty"]).to(self.device)
        for rows in self._rows(A).require_finite().blocks(BLOCK_ROWS):
            Z = encode(rows := self._normalised(rows))
            metrics.update(rows, Z @ D.to(Z), Z)
        return in_data_units(metrics.compute(), self.normalizer.scale)

    def decode(self, Z: Tensor | np.ndarray, strict: bool = False) -> Tensor:
        """Return rows (n, d) in data units: ``scale * (Z D) + mean``.

        Raises:
            ValueError: ``strict``, and a code is negative though the model's codes are nonnegative.
        """
        codes = self.sanitize_np_codes(Z)
        if strict and self.recipe.constraint.nonnegative_codes and (codes < 0).any():
            raise ValueError(
                f"{int((codes < 0).sum()):,} of {codes.numel():,} codes are negative (least {codes.min():g})"
                f", and nonnegative={self.recipe.nonnegative} has none; strict=False decodes them"
            )
        return self.normalizer.undo(codes @ self.get_dictionary().to(codes))

    def get_dictionary(self) -> Tensor:
        """Return D (k, d); a RuntimeError before it is learned or loaded."""
        if self.D is None:
            raise RuntimeError("no dictionary yet: call fit(A), or SemiNMF.load(path)")
        return self.D

    def init_random_z(self, A: Tensor | np.ndarray) -> Tensor:
        """Return random codes (n, k) of the right signs, from the seed."""
        rows = self.sanitize_np_input(A)
        generator = torch.Generator().manual_seed(self.recipe.seed)
        codes = torch.randn(rows.shape[0], self.recipe.nb_concepts, generator=generator).to(rows)
        return codes.abs() if self.recipe.constraint.nonnegative_codes else codes

    def init_random_d(self, A: Tensor | np.ndarray, Z: Tensor | np.ndarray) -> Tensor:
        """Return a random dictionary (k, d) from the seed, of the length that fits codes Z best.

        All atoms have the norm ``|<A, Z U>| / ||Z U||^2``, with U random unit atoms: uniform in (0, 1], or
        normal where atoms are free in sign.
        """
        rows, codes = self.sanitize_np_input(A), self.sanitize_np_codes(Z)
        generator = torch.Generator().manual_seed(self.recipe.seed)
        atoms = self.recipe.constraint.random_atoms(codes.shape[1], rows.shape[1], generator)
        U = unit_atoms(atoms).to(rows)
        product = codes.to(rows) @ U
        length = (rows * product).sum().abs() / product.square().sum().clamp(min=torch.finfo(rows.dtype).tiny)
        return U * length

    def sanitize_np_input(self, x: Tensor | np.ndarray) -> Tensor:
        """Return finite rows as float32 or float64 on the device; memory is shared where it can be."""
        return RowsInMemory(self._floats("A", x)).require_finite().A

    def sanitize_np_codes(self, z: Tensor | np.ndarray) -> Tensor:
        """Return codes as a float32 or float64 tensor on the device, checked to be 2-D with k columns."""
        codes = self._floats("Z", z)
        if codes.shape[1] != self.recipe.nb_concepts:
            raise ValueError(f"Z has {codes.shape[1]} columns, but nb_concepts={self.recipe.nb_concepts}")
        return codes

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write dictionary, scale, mean, labels and every setting to one ``.safetensors`` file.

        Of the network only names, precision and a digest of the weights are kept, no path.
        """
        from seminmf_lightning.dictionary_file import save_dictionary, without_paths

        config = self.settings | without_paths(self.network)
        save_dictionary(path, self.get_dictionary(), self.normalizer, config, self.effort, self.labels)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Self:
        """Load a file of :meth:`save`, a run's ``dictionary.safetensors``, or the run directory.

        Raises:
            FileNotFoundError, ValueError: there is no such file, or it holds no dictionary.
        """
        from seminmf_lightning.dictionary_file import load_dictionary
        from seminmf_lightning.io.labels import labels_beside

        saved = load_dictionary(path)
        model = cls(**saved.settings, device=device)
        model.D, model.normalizer, model.effort = saved.D, saved.normalizer, saved.effort
        model.network, model.labels = saved.config.get("network"), labels_beside(path, saved.D, saved.labels)
        return model.to(device)

    @classmethod
    def from_dictionary(
        cls, D: Tensor | np.ndarray, *, mean: Tensor | np.ndarray | None = None,
        device: str | torch.device = "cpu", **settings: Any,
    ) -> Self:  # fmt: skip
        """Return a model of atoms D (k, d) that encodes rows less ``mean`` (d,); errors as of the class.

        >>> model = SemiNMF.from_dictionary(torch.eye(3), encoder={"name": "omp", "nonzeros": 1})
        >>> model.encode(torch.tensor([[1.0, -4.0, 2.0]])).tolist()
        [[0.0, -4.0, 0.0]]
        """
        atoms = as_floats(real_matrix("D", D))
        given = {"nb_concepts": len(atoms), "normalize": "none" if mean is None else "center"}
        if wrong := {name: value for name, value in given.items() if settings.get(name, value) != value}:
            raise ValueError(f"D and mean make it {wrong}; leave out {', '.join(wrong)}")
        model = cls(**settings | given, device=device)
        signs = model.recipe.constraint
        if len(bad := atoms[signs.forbidden(atoms)]):
            raise ValueError(f"D holds {float(bad[0]):g}; nonnegative={signs.name} means {signs}, finite")
        model.encoder.check(*atoms.shape)
        normalizer = Normalizer() if mean is None else Normalizer.centred(mean, atoms.shape[1])
        model.D, model.normalizer = atoms.to(model.device), normalizer.to(model.device)
        return model

    @classmethod
    def from_sae(
        cls, path: str | os.PathLike[str], *, nonzeros: int | None = None, subfolder: str | None = None,
        revision: str | None = None, device: str | torch.device = "cpu", **settings: Any,
    ) -> Self:  # fmt: skip
        """Take the decoder of a sparse autoencoder as dictionary, and find codes by optimisation instead.

        Atoms are those of the decoder, of norm 1 and in its order; its bias is the mean.  "Inference-time
        optimisation": Smith, "Replacing sparse autoencoder encoders with inference-time optimisation", 2024.

        Args:
            path: a folder of SAELens, a ``.safetensors`` file, or a repository of the Hub, with the
                ``subfolder`` within, and its ``revision``.
            nonzeros: codes per row, found by ``encoder=omp``; None: as many as a TopK autoencoder keeps.
            settings: such as ``encoder`` or ``l1_penalty`` (in units of the rows) instead of ``nonzeros``;
                ``nonnegative`` is ``codes``, and may be ``none``.

        Raises:
            FileNotFoundError, ValueError: no such file, a pickle, or an unknown number of codes.
        """
        from seminmf_lightning.sae_file import read_sae

        sae = read_sae(path, subfolder, revision)
        D = unit_atoms(sae.W_dec.double()).float()  # squares of tiny weights underflow in float32
        return cls.from_dictionary(D, mean=sae.b_dec, device=device, **sae.settings(nonzeros, settings))

    def to(self, device: str | torch.device) -> Self:
        """Move the model."""
        self.device, self.normalizer = torch.device(device), self.normalizer.to(torch.device(device))
        self.D = None if self.D is None else self.D.to(self.device)
        return self

    def _rows(self, A: Activations) -> Rows:
        if isinstance(A, DataLoader):
            return RowsOfLoader(A, lambda name, rows: finite(name, self._floats(name, rows)))
        return RowsInMemory(self._floats("A", A))

    def _floats(self, name: str, x: Any) -> Tensor:
        return as_floats(real_matrix(name, x, "a tensor, an ndarray or a DataLoader").to(self.device))

    def _encoding(self, max_iter: int = 300, tol: float | None = None) -> Encode:
        whole_number("max_iter", max_iter, 1)
        real_number("tol", 0.0 if tol is None else tol, 0)
        return self.encoder.with_limits(max_iter, tol).precise(self.get_dictionary(), self.effort)

    def _normalised(self, rows: Tensor) -> Tensor:
        features = self.get_dictionary().shape[1]
        if rows.shape[1] != features:
            raise ValueError(f"rows have {rows.shape[1]} features, the dictionary has {features}")
        return self.normalizer.apply(rows)

    def _codes(self, rows: Rows, max_iter: int = 300, tol: float | None = None) -> Tensor:
        encode = self._encoding(max_iter, tol)
        return torch.cat([encode(self._normalised(block)) for block in rows.blocks(BLOCK_ROWS)])
