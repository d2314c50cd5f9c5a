"""The LightningModule that trains a dictionary on batches of rows.

Legend:  A (n, d) activations   Z (n, k) codes   D (k, d) dictionary
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities import rank_zero_info

from seminmf_lightning.core.sums import BLOCK_ROWS
from seminmf_lightning.data.plan import Batch, StreamPlan
from seminmf_lightning.training import checkpoints
from seminmf_lightning.training.data_port import as_batch
from seminmf_lightning.training.dictionary_module import DictionaryModule
from seminmf_lightning.training.distributed import SolverOptimizer, largest, rank
from seminmf_lightning.training.divergence import DivergenceError, Guard, newest_checkpoint
from seminmf_lightning.training.progress import PROGRESS_BAR, TrainingMetrics
from seminmf_lightning.training.schedule import Schedule, SolverStepsHook, refuse_without_epochs

STEPS_BETWEEN_CHECKS = 10
"""Solver steps between two checks for convergence, a signal or a due checkpoint, once all data has been
seen."""
TUNING_ROWS = 1024
"""Held-out rows that a penalty is tuned on."""


class SemiNMFModule(DictionaryModule):
    """Semi-NMF ``A ~ Z D``, ``D >= 0`` or as ``nonnegative`` says, of a stream of activation batches.

    ``min over D >= 0 of (1/n) sum_i min_z 1/2 ||a_i - z D||^2 + l1_penalty ||z||_1``, and ``||D_j||_2 <= 1``
    for every atom when l1_penalty > 0; ``a`` is normalised by one scalar first.

    Batches are rows (n, d), or a tuple that begins with them; n may differ and may be 0.
    ``trainer.fit`` starts from scratch, even for a trained module; with ``ckpt_path`` it resumes.

    Args:
        nb_concepts: k.
        settings: those of :class:`~seminmf_lightning.learners.Recipe`.

    Attributes:
        dictionary: D (k, d), float64 while the second moment is kept, else float32.
        metrics: metrics of the last validation or prediction, by name.

    Raises:
        TypeError, ValueError: a bad argument; on fit, bad data.

    >>> module = SemiNMFModule(nb_concepts=4, l1_penalty=0.1, seed=1)
    >>> module.hparams.nb_concepts, module.recipe.penalised
    (4, True)
    """

    def __init__(self, nb_concepts: int = 64, **settings: Any) -> None:
        super().__init__(nb_concepts, **settings)
        self.automatic_optimization = False
        self._used = False
        self._clear()

    def _clear(self) -> None:
        """Forget everything that training computed, except D and the normaliser."""
        self.effort = ()
        self._encode = None
        self._guard = Guard()
        self._learner_state: Mapping[str, Any] | None = None
        self._batch = 0
        """Batches of this epoch so far; the trainer's own count may be one behind after a resume."""
        self._solver_steps: int | None = None
        """Solver steps since the last batch of the data; None while there is data left."""

    # --- setting up

    def setup(self, stage: str) -> None:
        super().setup(stage)
        data = self._attached
        if stage == "fit":
            refuse_without_epochs(self.trainer)
            self.learner.reset()
            self._clear()
        learner, by_rows = self.learner, self.recipe.solver.update_every is None
        data.plan_stream(
            StreamPlan(
                order_matters=learner.order_matters,
                block_rows=1 if learner.order_matters else BLOCK_ROWS,
                rows_per_update=learner.update_rows if by_rows else None,
            )
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return SolverOptimizer(self.dictionary, self.learner)

    def on_fit_start(self) -> None:
        if self._used and self._learner_state is None:
            rank_zero_info("the module was trained before: training starts again; ckpt_path=... resumes")
        if self.trainer.limit_train_batches == 0:
            raise ValueError(
                "trainer.limit_train_batches=0 leaves nothing to train on; raise it or leave it out"
            )
        learner, data, device = self.learner, self._attached, self.trainer.strategy.root_device
        learner.to_(device)
        sample = data.sample(self.recipe.nb_concepts).to(device)
        rows, tuned = data.n_train_rows, self.recipe.target_l0 is not None
        n_rows = len(sample) if rows is None else rows
        if self.recipe.nb_concepts > n_rows:
            raise ValueError(
                f"nb_concepts={self.recipe.nb_concepts} is more than the {n_rows} training rows; lower it"
            )
        epochs = None if (most := self.trainer.max_epochs) is None or most < 0 else most
        held_out = data.held_out_sample(TUNING_ROWS) if tuned else None
        held_out = None if held_out is None else held_out.to(sample)
        self._used = True
        if self._learner_state is not None:
            learner.attach_sample(sample, self.normalizer, held_out=held_out, rows=rows, epochs=epochs)
            learner.load_state_dict(self._learner_state)
            if rank() > 0:
                learner.drop_own_rows()  # the checkpoint holds the sum of all processes: rank 0 takes it
            return
        with torch.no_grad():
            self.dictionary.copy_(learner.initialise(sample, held_out, rows, epochs))
            self.scale.fill_(learner.normalizer.scale)
            if learner.normalizer.mean is not None:
                self.mean.copy_(learner.normalizer.mean)
        rank_zero_info(
            f"statistics: {self.recipe.statistics_for(learner.features)} "
            f"({'exact, one epoch' if learner.single_epoch else 'online'}), {learner.features} features, "
            f"{'an unknown number of' if rows is None else f'{rows:,}'} training rows"
        )

    # --- training

    def on_train_start(self) -> None:
        learner, batches = self.learner, self.trainer.num_training_batches
        self._schedule = Schedule.for_learner(learner, batches, self._attached.batch_rows)
        self._training_metrics = TrainingMetrics(learner)
        self._log_every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if learner.rows_seen and self._batch == 0 and (learner.single_epoch or learner.converged()):
            self.trainer.should_stop = True  # resumed after its last epoch: rows must not count twice
        if self.global_step == 0:
            self._log(self._training_metrics.take(self.dictionary.detach(), self.global_step, certify=True))

    def on_train_epoch_start(self) -> None:
        self._attached.begin_epoch(self.current_epoch)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        with self._full_precision():
            if self._solver_steps is None:  # else resumed after this batch, whose rows are in the sums
                self._learn(as_batch(batch, self.learner.features))
            if self._solver_steps is not None:
                self._solve()
        self.effort = self.learner.effort

    def on_train_epoch_end(self) -> None:
        """End an epoch that gave fewer batches than its loader's length promised."""
        stopped = self.trainer.should_stop or self.trainer.received_sigterm or self._steps_left() <= 0
        if self._batch and not stopped:
            with self._full_precision():
                if self._solver_steps is None:
                    self._end_data()
                if self._solver_steps is not None:
                    self._solve()

    def _learn(self, batch: Batch) -> None:
        """Add the rows of a batch to the sums, and update the dictionary if due."""
        moment = self._schedule.at(self._batch, last=self.trainer.is_last_batch)
        self._batch += 1
        parts = batch.updates() if moment.update else [batch]
        first = 0
        for last in range(len(parts)):
            ends = last == len(parts) - 1
            due = moment.update and (self.learner.due() or (moment.end_of_data and ends))
            if due or ends:  # rows between two updates are encoded together
                self._observe(Batch.joined(parts[first : last + 1]))
                first = last + 1
            if due:
                self._step(lambda: True)
                for _ in range(self.learner.steps_per_update - 1):
                    self._step()
        if moment.end_of_data:
            self._end_data()
        else:
            self._report(force=moment.log)

    def _end_data(self) -> None:
        """Finish the data of an epoch: solver steps follow, or the next epoch."""
        learner = self.learner
        self.dictionary.copy_(learner.end_epoch(self.dictionary.detach()))
        if learner.single_epoch:
            self._solver_steps = 0
        else:
            self._batch = 0
            if learner.converged():
                self.trainer.should_stop = True
                rank_zero_info(
                    f"converged after {self.current_epoch + 1} of at most {self.trainer.max_epochs} epochs"
                )
        self._report(force=True, end_of_data=True, end_of_epoch=not learner.single_epoch)

    def _solve(self) -> None:
        """Take solver steps on the sums of all rows, until they converge or the run ends early."""
        assert self._solver_steps is not None
        learner, limit = self.learner, self.recipe.max_iter
        self.trainer.should_stop = True
        while self._solver_steps < limit:
            within = self._solver_steps % STEPS_BETWEEN_CHECKS
            if within == 0 and learner.converged():
                break
            if self._steps_left() <= 0 or self.trainer.received_sigterm or self._time_is_up():
                return  # resumed here
            chunk = min(STEPS_BETWEEN_CHECKS - within, limit - self._solver_steps, self._steps_left())
            for _ in range(chunk):
                self._step()
            self._solver_steps += chunk
            self._report(end_of_data=True)
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, SolverStepsHook):
                    callback.on_solver_steps(self.trainer, self._solver_steps, limit)
        done, self._batch, self._solver_steps = self._solver_steps, 0, None
        rank_zero_info(
            f"converged after {done} of at most {limit} solver steps"
            if learner.converged()
            else f"not converged after {done} solver steps; raise solver.max_iter or tol"
        )
        self._report(force=True, end_of_data=True, end_of_epoch=True)

    def _step(self, closure: Callable[[], bool] = lambda: False) -> None:
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        try:
            optimizer.step(closure)
        except FloatingPointError as error:
            raise self._diverged(str(error)) from error
        self._encode = None
        self.effort = self.learner.effort

    def _observe(self, batch: Batch) -> None:
        try:
            self.learner.observe(batch.rows, self.dictionary.detach())
        except FloatingPointError as error:
            raise ValueError(self._attached.explain(batch.rows, batch.row_ids)) from error

    def _report(self, *, force: bool = False, end_of_data: bool = False, end_of_epoch: bool = False) -> None:
        """Check the dictionary and log metrics, if due."""
        step, D = self.global_step, self.dictionary.detach()
        if not force and step - self._training_metrics.step < self._log_every:
            return
        if problem := self._guard.check_progress(self.learner, D, step, end_of_epoch=end_of_epoch):
            raise self._diverged(problem)
        metrics = self._training_metrics.take(D, step, certify=end_of_data)
        self._log(metrics)
        for tag, name in PROGRESS_BAR.items():
            if tag in metrics and self.trainer.training:
                self.log(name, metrics[tag], prog_bar=True, logger=False)

    def _diverged(self, problem: str) -> DivergenceError:
        where = f"epoch {self.current_epoch + 1}, {f'batch {self._batch}' if self._batch else 'at its end'}"
        return self._guard.report(
            problem, self.learner, self.dictionary.detach(), step=self.global_step, where=where,
            checkpoint=newest_checkpoint(self.trainer),
        )  # fmt: skip

    def _steps_left(self) -> int:
        """Return the number of updates that ``trainer.max_steps`` still allows."""
        limit = self.trainer.max_steps
        return 2**62 if limit < 0 else limit - self.global_step

    def _time_is_up(self) -> bool:
        """Whether ``trainer.max_time`` has passed on any process."""
        timers = [one for one in self.trainer.callbacks if isinstance(one, Timer)]  # type: ignore[attr-defined]
        left = [timer.time_remaining() for timer in timers]
        up = any(seconds is not None and seconds <= 0 for seconds in left)
        return bool(largest(int(up), self.device)) if timers else False

    # --- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if problem := self._guard.check(self.learner, self.dictionary.detach(), self.global_step):
            raise self._diverged(problem)  # before a good checkpoint is replaced
        state = checkpoints.state_of_all(self.learner, Path(self.trainer.default_root_dir))
        checkpoint |= {"learner": state, "effort": self.effort, "batch": self._batch}
        if self._solver_steps is not None:
            checkpoint["solver_steps"] = self._solver_steps
            checkpoints.reopen_last_batch(checkpoint)
        elif self._batch:
            checkpoints.reopen_epoch(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoints.upgrade(checkpoint, self.recipe.max_iter)
        concepts, features = self.recipe.nb_concepts, self.dictionary.shape[1]
        self._allocate(checkpoints.features_of(checkpoint, concepts, features))
        checkpoints.refuse_unless_like(checkpoint, self.state_dict(), self.learner)
        self.effort = tuple(checkpoint.get("effort", ()))
        self._batch, self._solver_steps = checkpoint.get("batch", 0), checkpoint.get("solver_steps")
        self._learner_state, self._used = checkpoint.get("learner"), True
