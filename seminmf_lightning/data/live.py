"""Stream activations from a network straight into training, without disk, through a shuffle buffer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.checks import real_number, whole_number
from seminmf_lightning.core.commands import command
from seminmf_lightning.data.live_stream import LiveStream
from seminmf_lightning.data.plan import LARGE_BATCH, SHUFFLED_ROWS, StreamPlan
from seminmf_lightning.data.splits import RowSet, held_out_groups, shuffled
from seminmf_lightning.harvest.harvester import Harvester
from seminmf_lightning.harvest.recipe import HarvestRecipe

COUNTED_EXAMPLES = 4096
"""Up to this many texts the held-out share is a share of rows, which are counted; beyond, of examples."""
PROBED_EXAMPLES = 16


class HarvestDataModule(lightning.LightningDataModule):
    """Streams rows (n, d) of one layer of a network that is shown examples while training runs.

    Args:
        model: network, as for :class:`~seminmf_lightning.harvest.HarvestRecipe`.
        inputs: examples that the network is run on, as for the recipe.
        layers: exactly one layer.
        recipe: other settings of the recipe.
        network_batch_size: images or windows of text per forward pass of the network.
        batch_size: rows per batch of all processes together, on average.  None: 1,024 where the order of rows
            matters to the module, else 8,192.
        buffer_mb: size of the window of rows that are shuffled together, in each process.
        val_fraction: share of the examples held out, in [0, 1); 0 evaluates on the training examples.
        sample_rows: rows of the first training examples that the normaliser and the initial dictionary are
            computed from; they are harvested once.
        max_skipped: share of the examples that may be unreadable, in [0, 1].
        seed: seed of the order and of the choice of tokens.
        split_seed: seed of the choice of held-out examples.

    Raises:
        TypeError, ValueError: a bad argument; on setup, a layer that does not exist or inputs that cannot be
            read.
    """

    name = "harvest"  # as in data=harvest

    def __init__(
        self, model: Mapping[str, Any], inputs: Mapping[str, Any], layers: str | Sequence[str], *,
        network_batch_size: int = 32, batch_size: int | None = None, buffer_mb: float = 128.0,
        val_fraction: float = 0.1, sample_rows: int = 16_384, max_skipped: float = 0.01, seed: int = 0,
        split_seed: int = 0, **recipe: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.recipe = HarvestRecipe(model, inputs, layers, batch_size=network_batch_size, seed=seed, **recipe)
        self.batch_size = None if batch_size is None else whole_number("data.batch_size", batch_size, 1)
        self.buffer_mb = real_number("data.buffer_mb", buffer_mb, 0, exclusive=True)
        self.val_fraction = real_number("data.val_fraction", val_fraction, 0, below=1)
        self.sample_rows = whole_number("data.sample_rows", sample_rows, 1)
        self.max_skipped = real_number("data.max_skipped", max_skipped, 0, at_most=1)
        self.seed = whole_number("data.seed", seed, 0)
        self.split_seed = whole_number("data.split_seed", split_seed, 0)
        self.train_examples = self.val_examples = RowSet.all(0)
        self.skipped: set[int] = set()
        self.features = 0
        """d, known after :meth:`setup`."""
        self.rows_per_example = 1.0
        self._plan = StreamPlan()
        self._train_stream: LiveStream | None = None
        self._harvester: Harvester | None = None
        self._sampled: dict[int, Tensor] = {}

    # --- Lightning's hooks

    def setup(self, stage: str | None = None) -> None:
        if self._harvester is None:
            device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
            self._harvester = self.recipe.harvester(device)
            if len(self._harvester.layers) != 1:
                names = ", ".join(map(str, self._harvester.layers))
                raise ValueError(
                    f"data.layers must name one layer, because one dictionary is trained; got {names}"
                )
            self._probe()

    def train_dataloader(self) -> LiveStream:
        size = self.batch_size or (SHUFFLED_ROWS if self._plan.order_matters else LARGE_BATCH)
        self._train_stream = LiveStream(
            self, self.train_examples, size, shuffle=True, rows_per_update=self._plan.rows_per_update
        )
        return self._train_stream

    def val_dataloader(self) -> LiveStream:
        return LiveStream(self, self.val_examples, self.batch_size or 4 * SHUFFLED_ROWS, shuffle=False)

    def predict_dataloader(self) -> Any:
        return self.source

    @property
    def source(self) -> Any:
        raise ValueError(
            f"data=harvest serves training only; harvest the rows with {command('harvest')} and use "
            "data=shards"
        )

    # --- the interface that the module uses: seminmf_lightning.training.data_port.TrainingData

    @property
    def n_train_rows(self) -> int | None:
        """None: unknown until the network has run on all examples."""
        return None

    @property
    def batch_rows(self) -> int | None:
        return None if self._train_stream is None else self._train_stream.batch_size

    def plan_stream(self, plan: StreamPlan) -> None:
        self._plan = plan

    def begin_epoch(self, epoch: int) -> None:
        if self._train_stream is not None:
            self._train_stream.set_epoch(epoch)

    def sample(self, at_least: int = 0) -> Tensor:
        """Return rows of the first training examples of the first epoch, the same on every process."""
        self._sampled.clear()
        order = shuffled(np.arange(len(self.train_examples)), len(self.train_examples), self.seed, 0)
        return self._some(self.train_examples.rows(order), self.sample_rows, keep=True)

    def held_out_sample(self, n_rows: int) -> Tensor:
        """Return rows of held-out examples."""
        order = shuffled(np.arange(len(self.val_examples)), len(self.val_examples), self.seed, 2**31)
        return self._some(self.val_examples.rows(order), n_rows, keep=False)

    def explain(self, A: Tensor, row_ids: Tensor | None) -> str:
        """Say why the rows of a batch cannot be used; ``row_ids`` are the examples they come from."""
        assert row_ids is not None
        names = ", ".join(self.harvester.inputs.identify(int(example)) for example in row_ids.unique()[:3])
        return (
            f"rows of {names} and others hold numbers up to {float(A.abs().max()):.3g}, too large to square"
        )

    # --- harvesting

    @property
    def harvester(self) -> Harvester:
        assert self._harvester is not None, "call setup() first"
        return self._harvester

    @property
    def window_examples(self) -> int:
        """Number of examples whose rows are shuffled together, over all processes."""
        rows = self.buffer_mb * 2**20 / (4 * self.features)
        return max(1, int(rows * self.world / self.rows_per_example))

    @property
    def world(self) -> int:
        return self.trainer.world_size if self.trainer is not None else 1

    @property
    def rank(self) -> int:
        return self.trainer.global_rank if self.trainer is not None else 0

    def rows_of(self, examples: Sequence[int], *, first_epoch: bool = False) -> tuple[Tensor, Tensor]:
        """Return rows (m, d) float32 of examples, and the example (m,) of each row.

        In the first epoch the rows of the sample are reused instead of harvested again.
        """
        harvester, layer = self.harvester, self.harvester.layers[0]
        kept = [example for example in examples if first_epoch and example in self._sampled]
        values = [self._sampled[example] for example in kept]
        numbers = [torch.full((len(rows),), example) for rows, example in zip(values, kept, strict=True)]
        missing = set(examples) - set(kept)
        for pool in harvester.pools(harvester.read(example for example in examples if example in missing)):
            self._count_skipped(pool)
            harvested = harvester.harvest(pool)
            if harvested is not None:
                values.append(harvested.rows[layer].values.float().clone())
                numbers.append(torch.from_numpy(harvested.rows[layer].origin["example"]))
        if not values:
            empty = torch.empty(0, self.features, device=harvester.device)
            return empty, torch.empty(0, dtype=torch.int64, device=harvester.device)
        return torch.cat(values), torch.cat(numbers).to(harvester.device)

    def forget_sample(self) -> None:
        """Free the rows of the sample, once the first epoch is over."""
        self._sampled.clear()

    def _some(self, examples: np.ndarray, n_rows: int, *, keep: bool) -> Tensor:
        parts, count = [], 0
        step = max(1, int(n_rows / self.rows_per_example / 2))
        for start in range(0, len(examples), step):
            values, numbers = self.rows_of(examples[start : start + step].tolist())
            if keep:
                present, sizes = numbers.unique_consecutive(return_counts=True)
                self._sampled |= dict(zip(present.tolist(), values.split(sizes.tolist()), strict=True))
            parts.append(values)
            count += len(values)
            if count >= n_rows:
                break
        if not count:
            layer = self.harvester.layers[0]
            raise ValueError(f"layer {layer!s} gives no rows; try another choice of data.tokens")
        return torch.cat(parts)[:n_rows]

    def _count_skipped(self, pool: Sequence[Any]) -> None:
        self.skipped |= {read.example for read in pool if read.skipped is not None}
        n_examples = len(self.harvester.inputs)
        if len(self.skipped) > self.max_skipped * n_examples:
            reasons = "".join(f"\n  {read.skipped}" for read in pool if read.skipped is not None)
            raise ValueError(
                f"{len(self.skipped)} of {n_examples} examples cannot be read, more than "
                f"data.max_skipped={self.max_skipped:.2%} allows:{reasons}"
            )

    def _probe(self) -> None:
        """Measure width, rows per example and median norm on a few examples; then split all examples."""
        harvester, layer = self.harvester, self.harvester.layers[0]
        count = len(harvester.inputs)
        picked = np.unique(np.linspace(0, count - 1, min(count, PROBED_EXAMPLES)).astype(int))
        harvested = harvester.harvest(harvester.few(harvester.read(picked.tolist())))
        if harvested is None or not len(harvested.rows[layer].values):
            raise ValueError(f"layer {layer!s} gives no rows for the {len(picked)} examples tried")
        rows = harvested.rows[layer]
        self.features = rows.values.shape[1]
        if harvester.norm_filter.name != "none":
            harvester.norm_filter = harvester.norm_filter.calibrated({layer: rows})
        counts = np.full(count, len(rows.values) / len(np.unique(rows.origin["example"])))
        if harvester.inputs.kind == "text" and count <= COUNTED_EXAMPLES:
            counts = np.array([self._count(read.items) for read in harvester.read(range(count))], dtype=float)
        self.rows_per_example = max(float(counts.mean()), 1e-3)
        if not self.val_fraction:
            self.train_examples = self.val_examples = RowSet.all(count)
            return
        held_out = held_out_groups(counts, self.val_fraction, self.split_seed)
        self.val_examples, self.train_examples = RowSet.where(held_out), RowSet.where(~held_out)
        if not len(self.train_examples):
            raise ValueError(
                f"data.val_fraction={self.val_fraction:g} of {count} examples leaves none to train on; "
                "lower it, or set it to 0"
            )

    def _count(self, items: Sequence[Any]) -> int:
        selector = self.recipe.selector
        if selector.tokens in ("cls", "mean"):
            return len(items)
        counts = [item.tokens if selector.tokens == "all" else int((~item.special).sum()) for item in items]
        return sum(counts if selector.number is None else [min(count, selector.number) for count in counts])
