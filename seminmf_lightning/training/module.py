"""The LightningModule: a nonnegative dictionary, and batches that make it better.

Legend:  A (n, d) activations   Z (n, k) codes   D (k, d) dictionary
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.core.sums import BLOCK_ROWS
from seminmf_lightning.dictionary_file import load_dictionary
from seminmf_lightning.encoders import Effort, Encode
from seminmf_lightning.io.untrusted import refusing
from seminmf_lightning.learners import Learner, Recipe, make_learner
from seminmf_lightning.metrics import ReconstructionMetrics, in_data_units
from seminmf_lightning.training.checkpoints import read_checkpoint
from seminmf_lightning.training.data_port import TrainerData, real_rows, unpack
from seminmf_lightning.training.distributed import SolverOptimizer, rank
from seminmf_lightning.training.divergence import DivergenceError, Guard, newest_checkpoint
from seminmf_lightning.training.progress import PROGRESS, TrainingFigures
from seminmf_lightning.training.resume import features_of, refuse_unless_like, reopen_pass, state_of_all

STEPS_A_BATCH_AFTER_PASS = 10
"""Solver steps between two looks at convergence once the data has been seen."""
UPDATES_A_PASS = 16
"""Updates of D during a pass whose statistics are exact in the end: they show the loss fall, and cost a
reduction each."""


class SemiNMFModule(lightning.LightningModule):
    """Semi-NMF ``A ~ Z D``, ``D >= 0``, on a stream of activation batches.

    ``min over D >= 0 of (1/n) sum_i min_z 1/2 ||a_i - z D||^2 + l1_penalty ||z||_1``, and ``||D_j||_2 <= 1``
    for every atom when l1_penalty > 0; ``a`` is normalised by one scalar first.  The arguments are those of
    :class:`~seminmf_lightning.learners.Recipe`; ``solver``, ``init`` and ``encoder`` are a name, or a mapping
    with a ``name`` and the algorithm's own settings.

    Batches are rows (n, d), or a tuple that begins with them; n may differ and may be 0.  With
    :class:`~seminmf_lightning.ActivationDataModule` the second element holds row numbers, which errors then
    name.

    Attributes:
        dictionary: D (k, d), float64 while the second moment is kept, else float32.
        figures: of the last validation, by name.

    Raises:
        TypeError, ValueError: a bad argument; on fit, bad data.
    """

    scale: Tensor
    mean: Tensor

    def __init__(
        self,
        nb_concepts: int = 64,
        *,
        solver: str | Mapping[str, Any] = "hals",
        l1_penalty: float = 0.0,
        target_l0: float | None = None,
        init: str | Mapping[str, Any] = "data",
        encoder: str | Mapping[str, Any] = "auto",
        statistics: str = "auto",
        normalize: str = "scale",
        tol: float = 1e-4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.recipe = Recipe(
            nb_concepts=nb_concepts, l1_penalty=l1_penalty, target_l0=target_l0, solver=solver, init=init,
            encoder=encoder, statistics=statistics, normalize=normalize, tol=tol, seed=seed,
        )  # fmt: skip
        plain = self.recipe.plain()
        self.save_hyperparameters(plain, logger=False)
        self.automatic_optimization = False
        # D must want a gradient or DDP refuses the module; none is ever computed.
        self.dictionary = nn.Parameter(torch.zeros(nb_concepts, 0))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(0, dtype=torch.float64))
        self.learner: Learner | None = None
        self.metrics: ReconstructionMetrics | None = None
        self.figures: dict[str, float] = {}
        self.effort: Effort = ()
        self._learner_state: Mapping[str, Any] | None = None
        self._encode: Encode | None = None
        self._guard = Guard()
        self._batch = 0  # of this pass; the trainer's own count is one behind after a resume in mid-epoch

    # --- what the data module asks
    # -------------------------------------------------------------------------------

    @property
    def order_matters(self) -> bool:
        """Whether batches should come shuffled: not to a sum."""
        return self._made_learner().order_matters

    @property
    def block_rows(self) -> int:
        """Rows whose product is taken at once, and which therefore stay in one process."""
        return 1 if self.order_matters else BLOCK_ROWS

    @property
    def minibatch_rows(self) -> int | None:
        """Rows of all processes together between two updates; None where updates go by batches."""
        return self._made_learner().update_rows if self.recipe.solver.update_every is None else None

    @property
    def extra_batches(self) -> int:
        """Empty batches wanted after each pass, in which the solver goes on with what it knows."""
        if not self._made_learner().single_epoch:
            return 0
        return -(-self.recipe.solver.max_iter // STEPS_A_BATCH_AFTER_PASS)

    # --- using a dictionary
    # --------------------------------------------------------------------------------------

    @property
    def normalizer(self) -> Normalizer:
        return Normalizer(float(self.scale), self.mean if self.recipe.normalize == "center" else None)

    @torch.no_grad()
    def encode(self, A: Tensor) -> Tensor:
        """Codes Z (n, k) of raw rows A (n, d), in normalised units."""
        if self._encode is None or self.training:
            self._encode = self._made_learner().encoder.precise(self.dictionary.detach(), self.effort)
        return self._encode(self.normalizer.apply(real_rows(A)))

    def forward(self, A: Tensor) -> Tensor:
        return self.encode(A)

    @torch.no_grad()
    def decode(self, Z: Tensor) -> Tensor:
        """Rows ``scale * (Z D) + mean`` (n, d) in data units."""
        return self.normalizer.undo(Z @ self.dictionary.to(Z))

    # --- set-up
    # --------------------------------------------------------------------------------------------------

    @classmethod
    def from_run(cls, run: str | os.PathLike[str], encoder: Mapping[str, Any] | None = None) -> SemiNMFModule:
        """The dictionary of a finished run, ready for ``trainer.predict``; with another encoder if one is
        given.

        Raises:
            FileNotFoundError, ValueError: there is no dictionary, or it cannot be read.
        """
        exported = load_dictionary(run)
        settings = dict(exported.settings)
        if encoder is not None:
            settings["encoder"] = dict(encoder)
            if encoder.get("name") not in ("lasso", "auto"):
                settings["l1_penalty"] = 0.0  # a penalty is the lasso's
        module = cls(**settings)
        with torch.no_grad():
            module._allocate(exported.D.shape[1])
            module.dictionary.copy_(exported.D)
            module.scale.fill_(exported.normalizer.scale)
            if exported.normalizer.mean is not None:
                module.mean.copy_(exported.normalizer.mean)
        module.effort = exported.effort if encoder is None else ()
        return module

    def setup(self, stage: str) -> None:
        if str(self.trainer.precision).startswith("16"):
            raise ValueError(
                f"trainer.precision={self.trainer.precision} would overflow; use 32-true or bf16-mixed"
            )
        self._allocate(self._data.features)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return SolverOptimizer(self.dictionary, self._made_learner())

    def on_fit_start(self) -> None:
        learner, device = self._made_learner(), self.trainer.strategy.root_device
        learner.to_(device)
        sample = self._data.sample(self.recipe.nb_concepts).to(device)
        rows = self._data.training_rows
        if rows is not None and self.recipe.nb_concepts > rows:
            raise ValueError(
                f"nb_concepts={self.recipe.nb_concepts} is more than the {rows} training rows; lower it"
            )
        if self._learner_state is not None:
            learner.attach_sample(sample, self.normalizer, held_out=self._held_out(sample), rows=rows)
            learner.load_state_dict(self._learner_state)
            if rank() > 0:
                learner.pending.zero_()  # the checkpoint holds the sum of all processes: rank 0 takes it
            return
        with torch.no_grad():
            self.dictionary.copy_(learner.initialise(sample, self._held_out(sample), rows))
            self.scale.fill_(learner.normalizer.scale)
            if learner.normalizer.mean is not None:
                self.mean.copy_(learner.normalizer.mean)
        rank_zero_info(
            f"statistics: {self.recipe.statistics_for(learner.features)} "
            f"({'exact, one pass' if learner.single_epoch else 'online'}), {learner.features} features, "
            f"{'an unknown number of' if rows is None else f'{rows:,}'} training rows"
        )

    # --- training
    # ------------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        learner = self._made_learner()
        self._watch = TrainingFigures(learner)
        if learner.rows_seen and self._batch == 0 and (learner.single_epoch or learner.converged()):
            self.trainer.should_stop = True  # resumed after its last pass: rows must not count twice
        if self.global_step == 0:
            self._log(self._watch.take(self.dictionary.detach(), self.global_step, certify=True))

    def on_train_epoch_start(self) -> None:
        loader: Any = self.trainer.train_dataloader
        if hasattr(loader, "set_epoch"):
            loader.set_epoch(self.current_epoch)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        learner, solver = self._made_learner(), self.recipe.solver
        data_batches = self._data.batches
        batch_idx, self._batch = self._batch, self._batch + 1
        update_every = solver.update_every or self._usual_update_every()
        updated = True
        with self._full_precision():
            if batch_idx < data_batches:
                last = batch_idx + 1 == data_batches
                updated = (batch_idx + 1) % update_every == 0 or last
                for part in self._data.minibatches(batch) if updated else ():
                    self._step(functools.partial(self._observe, part))
                    for _ in range(solver.steps_per_batch - 1):
                        self._step(lambda: False)
                if not updated:
                    self._observe(batch)
                if last:
                    self.dictionary.copy_(learner.end_epoch(self.dictionary.detach()))
            elif not learner.converged():
                self._solve(STEPS_A_BATCH_AFTER_PASS)
            at_end = batch_idx + 1 >= self.trainer.num_training_batches or self.trainer.is_last_batch
            if at_end and learner.single_epoch:
                # A loader without extra batches, or the last of them: what is left to do is done here.
                done = (batch_idx + 1 - data_batches) * STEPS_A_BATCH_AFTER_PASS
                while done < solver.max_iter and not learner.converged():
                    self._solve(min(STEPS_A_BATCH_AFTER_PASS, solver.max_iter - done))
                    done += STEPS_A_BATCH_AFTER_PASS
        self.effort = learner.effort
        if at_end:
            self._batch = 0
        finished = learner.converged() and batch_idx + 1 >= data_batches
        if finished or (at_end and learner.single_epoch):
            self.trainer.should_stop = True
        due = self.global_step - self._watch.step >= getattr(self.trainer, "log_every_n_steps", 50)
        rare = (
            learner.single_epoch
            and updated
            and update_every > 1
            and solver.update_every is None
            and batch_idx < data_batches
        )
        if due or rare or at_end or finished:
            if found := self._guard.look(
                learner, self.dictionary.detach(), self.global_step, end_of_pass=at_end
            ):
                raise self._diverged(found)
            figures = self._watch.take(
                self.dictionary.detach(), self.global_step, certify=batch_idx + 1 >= data_batches
            )
            self._log(figures)
            for tag, name in PROGRESS.items():
                if tag in figures:
                    self.log(name, figures[tag], prog_bar=True, logger=False)

    def _solve(self, steps: int) -> None:
        for _ in range(steps):
            self._step(lambda: False)

    def _step(self, closure: Callable[[], bool]) -> None:
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        try:
            optimizer.step(closure)
        except FloatingPointError as error:
            raise self._diverged(str(error)) from error
        self._encode = None

    def _diverged(self, found: str) -> DivergenceError:
        place = f"pass {self.current_epoch + 1}, {f'batch {self._batch}' if self._batch else 'at its end'}"
        checkpoint, D = newest_checkpoint(self.trainer), self.dictionary.detach()
        return self._guard.report(
            found, self._made_learner(), D, step=self.global_step, place=place, checkpoint=checkpoint
        )

    def _observe(self, batch: Any) -> bool:
        A, numbers = unpack(batch)
        try:
            self._made_learner().observe(A, self.dictionary.detach())
        except FloatingPointError as error:
            raise ValueError(self._data.explain(A, numbers)) from error
        return True

    # --- validation
    # ----------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        assert self.metrics is not None
        learner = self._made_learner()
        self.metrics.reset()
        self.metrics.l1_penalty = learner.penalty
        self._encode = learner.encoder.precise(self.dictionary.detach(), self.effort)

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        assert self.metrics is not None and self._encode is not None
        A, numbers = unpack(batch)
        with self._full_precision():
            if not A.isfinite().all():
                raise ValueError(self._data.explain(A, numbers))
            A = self.normalizer.apply(A)
            Z = self._encode(A)
            self.metrics.update(A, Z @ self.dictionary.to(Z), Z)
        return {"codes": Z}

    def on_validation_epoch_end(self) -> None:
        self.figures = self._figures()
        tagged = {f"val/{name}": value for name, value in self.figures.items()}
        self.log_dict(tagged, logger=False, sync_dist=False)
        if not self.trainer.sanity_checking:
            self._log(tagged)

    def optimality_gap(self) -> float | None:
        """``loss / bound - 1`` on the training rows seen; None where there is no certificate (l1_penalty >
        0)."""
        return self._made_learner().optimality_gap(self.dictionary.detach())

    def plain_recipe(self) -> dict[str, Any]:
        """Every setting, with the penalty as tuned, as plain numbers, strings and mappings."""
        return self._made_learner().plain_recipe()

    @property
    def rows_seen(self) -> int:
        """Training rows of all processes so far, a row once for each time it came by."""
        return self._made_learner().rows_seen

    # --- prediction
    # ----------------------------------------------------------------------------------------------

    def on_predict_epoch_start(self) -> None:
        self.on_validation_epoch_start()

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Codes of a batch; the figures of all batches are in :attr:`figures` when prediction ends."""
        return self.validation_step(batch, batch_idx)["codes"]

    def on_predict_epoch_end(self) -> None:
        assert self.metrics is not None
        self.figures = self._figures()

    def _figures(self) -> dict[str, float]:
        assert self.metrics is not None
        return in_data_units(self.metrics.compute(), float(self.scale))

    # --- checkpoints
    # ---------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if found := self._guard.check(self._made_learner(), self.dictionary.detach(), self.global_step):
            raise self._diverged(found)  # before a good checkpoint is replaced
        checkpoint["learner"] = state_of_all(self._made_learner())
        checkpoint["effort"] = self.effort
        checkpoint["batch"] = self._batch
        if self._batch:
            reopen_pass(checkpoint)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As any module's; a new one learns the width of the data from it."""
        if "dictionary" in state_dict:
            self._allocate(state_dict["dictionary"].shape[1])
        return super().load_state_dict(state_dict, *args, **kwargs)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | os.PathLike[str], map_location: str | torch.device = "cpu", *, weights_only: bool = True,
        **settings: Any,
    ) -> SemiNMFModule:  # fmt: skip
        """The module as it was, on ``map_location``, with other ``settings`` where some are given.

        Raises:
            FileNotFoundError, ValueError: it is not there, or not a checkpoint of this class; nothing in it
                is run.
        """
        if not weights_only:
            raise ValueError(
                "weights_only=False would run what is in the file: a checkpoint of ours never needs it"
            )
        checkpoint = read_checkpoint(Path(checkpoint_path))
        known = checkpoint["hyper_parameters"]
        with refusing(checkpoint_path, "a checkpoint of SemiNMFModule"):
            Recipe(**known)
        module = cls(**known | settings)
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"])
        return module.to(map_location)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._allocate(features_of(checkpoint, self.recipe.nb_concepts, self.dictionary.shape[1]))
        refuse_unless_like(checkpoint, self.state_dict(), self._made_learner())
        self.effort = tuple(checkpoint.get("effort", ()))
        self._batch = checkpoint.get("batch", 0)
        self._learner_state = checkpoint.get("learner")

    # --- small things
    # --------------------------------------------------------------------------------------------

    def _made_learner(self) -> Learner:
        if self.learner is None:
            raise RuntimeError("the module has no data yet: call trainer.fit(module, datamodule) first")
        return self.learner

    def _allocate(self, features: int) -> None:
        """Make room for D (k, features), once the width of the data is known."""
        if self.learner is not None and self.learner.features == features:
            return
        if self.learner is not None:
            raise ValueError(f"the dictionary has {self.learner.features} features, the data has {features}")
        self.learner = make_learner(self.recipe, features)
        shape = (self.recipe.nb_concepts, features)
        self.dictionary = nn.Parameter(
            torch.zeros(shape, dtype=self.learner.dictionary_dtype, device=self.device)
        )
        self.mean = torch.zeros(features, dtype=torch.float64, device=self.device)
        self.metrics = ReconstructionMetrics(*shape, self.recipe.l1_penalty).to(self.device)

    @property
    def _data(self) -> TrainerData:
        return TrainerData(self.trainer)

    def _held_out(self, like: Tensor) -> Tensor | None:
        """Rows to tune the penalty on, if it is to be tuned."""
        rows = None if self.recipe.target_l0 is None else self._data.held_out()
        return None if rows is None else rows.to(like)

    def _usual_update_every(self) -> int:
        rows, batch_rows = self._made_learner().update_rows, self._data.batch_rows
        if rows is None:
            return max(1, self._data.batches // UPDATES_A_PASS)
        return 1 if batch_rows is None else max(1, rows // batch_rows)

    @contextmanager
    def _full_precision(self) -> Iterator[None]:
        """Statistics in bfloat16 would be worthless: mixed precision stops at this door."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            yield

    def _log(self, values: dict[str, float]) -> None:
        for logger in self.loggers:
            logger.log_metrics(values, step=self.global_step)
