"""A dictionary as a LightningModule: encode, decode, validate and predict.

Legend:  A (n, d) activations   Z (n, k) codes   D (k, d) dictionary
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import torch
from torch import Tensor, nn

from seminmf_lightning.core.discovery import available, default_for
from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.dictionary_file import load_dictionary
from seminmf_lightning.encoders import Effort, Encode, Encoder, Penalised
from seminmf_lightning.io.untrusted import refusing
from seminmf_lightning.learners import Learner, Recipe, make_learner
from seminmf_lightning.metrics import ReconstructionMetrics, in_data_units
from seminmf_lightning.solvers import Solver
from seminmf_lightning.training.checkpoints import read_checkpoint
from seminmf_lightning.training.data_port import TrainingData, as_batch, data_of, real_rows
from seminmf_lightning.training.distributed import ProcessGroup

if TYPE_CHECKING:
    from typing_extensions import Self

PRECISIONS = ("32-true", "bf16-mixed")
"""Values of ``trainer.precision`` that train correctly; mixed precision ends at this module."""


class DictionaryModule(lightning.LightningModule):
    """Everything that :class:`~seminmf_lightning.SemiNMFModule` does, except training."""

    scale: Tensor
    mean: Tensor

    def __init__(self, nb_concepts: int = 64, **settings: Any) -> None:
        super().__init__()
        bounded = {"solver": default_for(Solver, "bounded")}
        self.recipe = Recipe.from_settings({"nb_concepts": nb_concepts} | bounded | settings)
        self.save_hyperparameters(self.recipe.plain(), logger=False)
        # D must require a gradient or DDP refuses the module; none is ever computed.
        self.dictionary = nn.Parameter(torch.zeros(nb_concepts, 0))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(0, dtype=torch.float64))
        self.metrics: dict[str, float] = {}
        self.effort: Effort = ()
        self._learner: Learner | None = None
        self._data: TrainingData | None = None
        self._reconstruction: ReconstructionMetrics | None = None
        self._encode: Encode | None = None

    # --- using a dictionary

    @property
    def learner(self) -> Learner:
        if self._learner is None:
            raise RuntimeError("the module has no data yet: call trainer.fit(module, datamodule) first")
        return self._learner

    @property
    def normalizer(self) -> Normalizer:
        return Normalizer(float(self.scale), self.mean if self.recipe.normalize == "center" else None)

    @torch.no_grad()
    def encode(self, A: Tensor) -> Tensor:
        """Return codes Z (n, k) of raw rows A (n, d), in normalised units."""
        if self._encode is None or self.training:
            self._encode = self.learner.encoder.precise(self.dictionary.detach(), self.effort)
        return self._encode(self.normalizer.apply(real_rows(A)))

    def forward(self, A: Tensor) -> Tensor:
        return self.encode(A)

    @torch.no_grad()
    def decode(self, Z: Tensor) -> Tensor:
        """Return rows ``scale * (Z D) + mean`` (n, d) in data units."""
        return self.normalizer.undo(Z @ self.dictionary.to(Z))

    def optimality_gap(self) -> float | None:
        """Return ``loss / bound - 1`` on the training rows; None without a certificate (l1_penalty > 0)."""
        return self.learner.optimality_gap(self.dictionary.detach())

    def plain_recipe(self) -> dict[str, Any]:
        """Return every setting, with the tuned penalty, as plain numbers, strings and mappings."""
        return self.learner.plain_recipe()

    @property
    def rows_seen(self) -> int:
        """Training rows of all processes so far, each counted once per epoch."""
        return self.learner.rows_seen

    @classmethod
    def from_run(cls, run: str | os.PathLike[str], encoder: Mapping[str, Any] | None = None) -> Self:
        """Load the dictionary of a finished run, ready for ``trainer.predict``; ``encoder`` replaces its own.

        Raises:
            FileNotFoundError, ValueError: there is no dictionary, or it cannot be read.
        """
        exported = load_dictionary(run)
        settings = dict(exported.settings)
        if encoder is not None:
            settings["encoder"] = dict(encoder)
            kind = available(Encoder).get(str(encoder.get("name")))
            if kind is not None and not issubclass(kind, Penalised):
                settings["l1_penalty"] = 0.0  # this encoder takes none
        module = cls(**settings)
        with torch.no_grad():
            module._allocate(exported.D.shape[1])
            module.dictionary.copy_(exported.D)
            module.scale.fill_(exported.normalizer.scale)
            if exported.normalizer.mean is not None:
                module.mean.copy_(exported.normalizer.mean)
        module.effort = exported.effort if encoder is None else ()
        return module

    # --- setting up

    def setup(self, stage: str) -> None:
        if self.trainer.precision not in PRECISIONS:
            raise ValueError(
                f"trainer.precision={self.trainer.precision} is not supported: sums are float64 already, "
                "and codes "
                f"and atoms need float32; use {' or '.join(PRECISIONS)}"
            )
        self._data = data_of(self.trainer)
        self._allocate(self._data.features)

    def teardown(self, stage: str) -> None:
        self._data = None

    def _allocate(self, features: int) -> None:
        """Allocate D (k, features), once the width of the data is known."""
        if self._learner is not None and self._learner.features == features:
            return
        if self._learner is not None:
            raise ValueError(
                f"the dictionary has {self._learner.features} features, the data has {features}; "
                "make a new module for data of another width"
            )
        self._learner = make_learner(self.recipe, features, ProcessGroup())
        shape, device = (self.recipe.nb_concepts, features), self.device
        self.dictionary = nn.Parameter(
            torch.zeros(shape, dtype=self._learner.dictionary_dtype, device=device)
        )
        self.mean = torch.zeros(features, dtype=torch.float64, device=device)
        self._reconstruction = ReconstructionMetrics(*shape, self.recipe.l1_penalty).to(device)

    @property
    def _attached(self) -> TrainingData:
        assert self._data is not None, "setup() comes first"
        return self._data

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load a state; a module that has seen no data takes its width from it."""
        if "dictionary" in state_dict:
            self._allocate(state_dict["dictionary"].shape[1])
        return super().load_state_dict(state_dict, *args, **kwargs)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | os.PathLike[str], map_location: str | torch.device = "cpu", *,
        weights_only: bool = True, **settings: Any,
    ) -> Self:  # fmt: skip
        """Load a module as it was, on ``map_location``, with ``settings`` in place of its own.

        Raises:
            FileNotFoundError, ValueError: it is not there, or not a checkpoint of this class; nothing in it
                is run.
        """
        if not weights_only:
            raise ValueError(
                "weights_only=False would run code in the file, which our checkpoints never need"
            )
        checkpoint = read_checkpoint(Path(checkpoint_path))
        saved = checkpoint["hyper_parameters"]
        with refusing(checkpoint_path, "a checkpoint of SemiNMFModule"):
            saved = Recipe.from_saved(saved).plain()
        module = cls(**saved | settings)
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"])
        return module.to(map_location)

    @contextmanager
    def _full_precision(self) -> Iterator[None]:
        """Leave mixed precision: sums in bfloat16 would be useless."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            yield

    def _log(self, values: dict[str, float]) -> None:
        for logger in self.loggers:
            logger.log_metrics(values, step=self.global_step)

    # --- validation and prediction

    def on_validation_epoch_start(self) -> None:
        assert self._reconstruction is not None
        if not self.rows_seen and not self.dictionary.any():
            raise RuntimeError(
                "the module has no dictionary yet: call trainer.fit, or load one with from_run(...)"
            )
        self._reconstruction.reset()
        self._reconstruction.l1_penalty = self.learner.penalty
        self._encode = self.learner.encoder.precise(self.dictionary.detach(), self.effort)

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        assert self._reconstruction is not None and self._encode is not None
        A, row_ids, _ = as_batch(batch, self.learner.features)
        with self._full_precision():
            if not A.isfinite().all():
                raise ValueError(self._attached.explain(A, row_ids))
            A = self.normalizer.apply(A)
            Z = self._encode(A)
            self._reconstruction.update(A, Z @ self.dictionary.to(Z), Z)
        return {"codes": Z}

    def on_validation_epoch_end(self) -> None:
        self._measure()
        tagged = {f"val/{name}": value for name, value in self.metrics.items()}
        self.log_dict(tagged, logger=False, sync_dist=False)
        if not self.trainer.sanity_checking:
            self._log(tagged)

    def on_predict_epoch_start(self) -> None:
        self.on_validation_epoch_start()

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the codes of a batch; when prediction ends, :attr:`metrics` covers all batches."""
        return self.validation_step(batch, batch_idx)["codes"]

    def on_predict_epoch_end(self) -> None:
        self._measure()

    def _measure(self) -> None:
        assert self._reconstruction is not None
        self.metrics = in_data_units(self._reconstruction.compute(), float(self.scale))
