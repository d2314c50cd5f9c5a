"""Activations straight from a network into training: no disk, a bounded shuffle buffer.

A pass takes the examples in a new random order, a *window* of them at a time: their rows are harvested,
mixed, and given out in batches; then comes the next window.  A pass has the same number of batches whatever
the examples hold, and a window's rows are spread evenly over its own, so that every row comes once, all
processes count alike, and a resumed pass harvests anew only the window it was in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.checks import real_number, whole_number
from seminmf_lightning.data.loader import Batch
from seminmf_lightning.data.splits import RowSet, held_out_groups, shuffled
from seminmf_lightning.harvest.harvester import Harvester
from seminmf_lightning.harvest.recipe import HarvestRecipe

COUNTED_EXAMPLES = 4096
"""Up to so many texts, the rows of each are counted: the held-out share is one of rows; beyond, one of
examples."""
PROBED_EXAMPLES = 16
SHUFFLED_ROWS = 1024
LARGE_BATCH = 8192


class HarvestDataModule(lightning.LightningDataModule):
    """Streams rows (n, d) of one layer of a network that is shown examples as training goes.

    ``model`` to ``norm_factor``, ``workers`` and ``limit`` are those of
    :class:`~seminmf_lightning.harvest.HarvestRecipe`; exactly one layer.

    Args:
        network_batch_size: pictures or windows of text the network is shown at once.
        batch_size: rows a step, of all processes together, on average.  None: 1,024 where the order of rows
            matters to the module, else 8,192.
        buffer_mb: size of the window of rows that are mixed, in each process.
        val_fraction: share of the examples held out, in [0, 1); 0 evaluates on the training examples.
        sample_rows: rows of the first training examples that the normaliser and the starting dictionary are
            made from; they are harvested once.
        seed: of the order and the choice of tokens.
        split_seed: of the choice of held-out examples.

    Raises:
        TypeError, ValueError: a bad argument; on setup, a layer that does not exist or inputs that cannot be
            read.
    """

    name = "harvest"  # what data= takes

    def __init__(
        self,
        model: Mapping[str, Any],
        inputs: Mapping[str, Any],
        layers: str | Sequence[str],
        *,
        tokens: str = "no_special",
        number: int | None = None,
        layout: str = "auto",
        norm_filter: str = "none",
        norm_factor: float = 10.0,
        network_batch_size: int = 32,
        workers: int | None = None,
        limit: int | None = None,
        batch_size: int | None = None,
        buffer_mb: float = 128.0,
        val_fraction: float = 0.1,
        sample_rows: int = 16_384,
        max_skipped: float = 0.01,
        seed: int = 0,
        split_seed: int = 0,
    ) -> None:
        super().__init__()
        self.recipe = HarvestRecipe(
            model, inputs, layers, tokens=tokens, number=number, layout=layout, norm_filter=norm_filter,
            norm_factor=norm_factor, batch_size=network_batch_size, workers=workers, seed=seed, limit=limit,
        )  # fmt: skip
        self.batch_size = None if batch_size is None else whole_number("data.batch_size", batch_size, 1)
        self.buffer_mb = real_number("data.buffer_mb", buffer_mb, 0, exclusive=True)
        self.val_fraction = real_number("data.val_fraction", val_fraction, 0, below=1)
        self.sample_rows = whole_number("data.sample_rows", sample_rows, 1)
        self.max_skipped = real_number("data.max_skipped", max_skipped, 0, below=1.0000001)
        self.seed = whole_number("data.seed", seed, 0)
        self.split_seed = whole_number("data.split_seed", split_seed, 0)
        self.train_examples = self.val_examples = RowSet.all(0)
        self.skipped: set[int] = set()
        self._harvester: Harvester | None = None
        self._features = 0
        self._rows_an_example = 1.0
        self._kept: dict[int, Tensor] = {}

    # --- what the trainer and the module ask
    # ---------------------------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        if self._harvester is None:
            device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
            self._harvester = self.recipe.harvester(device)
            if len(self._harvester.layers) != 1:
                found = ", ".join(map(str, self._harvester.layers))
                raise ValueError(
                    f"data.layers must name one layer, since one dictionary is trained; it names {found}"
                )
            self._probe()

    @property
    def features(self) -> int:
        """d."""
        return self._features

    @property
    def source(self) -> Any:
        raise ValueError(
            "data=harvest gives rows to training alone; harvest them with scripts/harvest.py and use data=shards"
        )

    def train_dataloader(self) -> LiveStream:
        module = self.trainer.lightning_module if self.trainer is not None else None
        usual = SHUFFLED_ROWS if getattr(module, "order_matters", True) else LARGE_BATCH
        return LiveStream(
            self, self.train_examples, self.batch_size or usual, shuffle=True, extra=getattr(module, "extra_batches", 0),
            minibatch=getattr(module, "minibatch_rows", None),
        )  # fmt: skip

    def val_dataloader(self) -> LiveStream:
        return LiveStream(self, self.val_examples, self.batch_size or 4 * SHUFFLED_ROWS, shuffle=False)

    def predict_dataloader(self) -> Any:
        return self.source

    def sample(self) -> Tensor:
        """Rows of the first training examples of the first pass, the same on every process."""
        self._kept.clear()
        order = shuffled(np.arange(len(self.train_examples)), len(self.train_examples), self.seed, 0)
        return self._some(self.train_examples.rows(order), self.sample_rows, keep=True)

    def held_out_sample(self, rows: int) -> Tensor:
        """Rows of held-out examples."""
        order = shuffled(np.arange(len(self.val_examples)), len(self.val_examples), self.seed, 2**31)
        return self._some(self.val_examples.rows(order), rows, keep=False)

    def explain(self, A: Tensor, numbers: Tensor) -> str:
        """What is wrong with a batch that cannot be used."""
        names = [self.harvester.inputs.identify(int(number)) for number in numbers.unique()[:3]]
        return f"rows of {', '.join(names)} and others hold numbers up to {float(A.abs().max()):.3g}, too large to square"

    # --- harvesting
    # ----------------------------------------------------------------------------------------------

    @property
    def harvester(self) -> Harvester:
        assert self._harvester is not None, "setup first"
        return self._harvester

    @property
    def window_examples(self) -> int:
        """Examples whose rows are mixed, in all processes together."""
        rows = self.buffer_mb * 2**20 / (4 * self._features)
        return max(1, int(rows * self.world / self._rows_an_example))

    @property
    def world(self) -> int:
        return self.trainer.world_size if self.trainer is not None else 1

    @property
    def rank(self) -> int:
        return self.trainer.global_rank if self.trainer is not None else 0

    def rows_of(self, examples: Sequence[int], *, first_pass: bool = False) -> tuple[Tensor, Tensor]:
        """Rows (m, d) float32 of examples, and the example of each (m,).

        In the first pass over the training examples those of the sample are at hand already; they are kept
        until it ends.
        """
        harvester, layer = self.harvester, self.harvester.layers[0]
        device = harvester.device
        known = [example for example in examples if first_pass and example in self._kept]
        values = [self._kept[example] for example in known]
        numbers = [torch.full((len(rows),), example) for rows, example in zip(values, known, strict=True)]
        wanted = set(examples) - set(known)
        for pool in harvester.pools(harvester.read(example for example in examples if example in wanted)):
            self._count_skipped(pool)
            found = harvester.harvest(pool)
            if found is not None:
                values.append(found.rows[layer].values.float().clone())
                numbers.append(torch.from_numpy(found.rows[layer].origin["example"]))
        if not values:
            return torch.empty(0, self._features, device=device), torch.empty(
                0, dtype=torch.int64, device=device
            )
        return torch.cat(values), torch.cat(numbers).to(device)

    def forget_sample(self) -> None:
        """Free the rows of the sample: the first pass is over."""
        self._kept.clear()

    def _some(self, examples: np.ndarray, wanted: int, *, keep: bool) -> Tensor:
        parts, found = [], 0
        step = max(1, int(wanted / self._rows_an_example / 2))
        for start in range(0, len(examples), step):
            values, numbers = self.rows_of(examples[start : start + step].tolist())
            if keep:
                present, sizes = numbers.unique_consecutive(return_counts=True)
                self._kept |= dict(zip(present.tolist(), values.split(sizes.tolist()), strict=True))
            parts.append(values)
            found += len(values)
            if found >= wanted:
                break
        if not found:
            raise ValueError(
                f"layer {self.harvester.layers[0]!s} gives no rows; another choice of data.tokens may"
            )
        return torch.cat(parts)[:wanted]

    def _count_skipped(self, pool: Sequence[Any]) -> None:
        self.skipped |= {read.example for read in pool if read.skipped is not None}
        allowed = self.max_skipped * len(self.harvester.inputs)
        if len(self.skipped) > allowed:
            reasons = "".join(f"\n  {read.skipped}" for read in pool if read.skipped is not None)
            raise ValueError(
                f"{len(self.skipped)} of {len(self.harvester.inputs)} examples cannot be read, more than "
                f"data.max_skipped={self.max_skipped:.2%} allows:{reasons}"
            )

    def _probe(self) -> None:
        """Learn the width, the rows an example, the median norm; split the examples."""
        harvester, layer = self.harvester, self.harvester.layers[0]
        count = len(harvester.inputs)
        picked = np.unique(np.linspace(0, count - 1, min(count, PROBED_EXAMPLES)).astype(int))
        found = harvester.harvest(harvester.few(harvester.read(picked.tolist())))
        if found is None or not len(found.rows[layer].values):
            raise ValueError(f"layer {layer!s} gives no rows for {len(picked)} examples looked at")
        rows = found.rows[layer]
        self._features = rows.values.shape[1]
        if harvester.norm_filter.name != "none":
            harvester.norm_filter = harvester.norm_filter.calibrated({layer: rows})
        counts = np.full(count, len(rows.values) / len(np.unique(rows.origin["example"])))
        if harvester.inputs.kind == "text" and count <= COUNTED_EXAMPLES:
            counts = np.array([self._count(read.items) for read in harvester.read(range(count))], dtype=float)
        self._rows_an_example = max(float(counts.mean()), 1e-3)
        held = (
            held_out_groups(counts, self.val_fraction, self.split_seed)
            if self.val_fraction
            else np.ones(count, dtype=bool)
        )
        self.val_examples = RowSet.where(held)
        self.train_examples = RowSet.where(~held) if self.val_fraction else self.val_examples
        if not len(self.train_examples):
            raise ValueError(
                f"data.val_fraction={self.val_fraction:g} of {count} examples leaves none to train on; lower it, or set it to 0"
            )

    def _count(self, items: Sequence[Any]) -> int:
        selector = self.recipe.selector
        if selector.tokens in ("cls", "mean"):
            return len(items)
        counts = [item.tokens if selector.tokens == "all" else int((~item.special).sum()) for item in items]
        return sum(counts if selector.number is None else [min(count, selector.number) for count in counts])


class LiveStream:
    """An iterable for the trainer: ``len``, a resumable position; see the head of this file.

    ``batch_size`` counts the rows of all processes together; batches hold about as many.  ``extra`` empty
    batches follow, and each batch is made of minibatches of about ``minibatch`` rows, as in
    :class:`~seminmf_lightning.data.loader.BatchStream`.
    """

    def __init__(
        self, data: HarvestDataModule, examples: RowSet, batch_size: int, *,
        shuffle: bool, extra: int = 0, minibatch: int | None = None,
    ) -> None:  # fmt: skip
        self.data, self.examples, self.batch_size, self.shuffle, self.extra = (
            data,
            examples,
            batch_size,
            shuffle,
            extra,
        )
        self.minibatch = min(minibatch or batch_size, batch_size)
        each = data.window_examples
        self.windows = [(start, min(start + each, len(examples))) for start in range(0, len(examples), each)]
        rows = data._rows_an_example
        self.batches = [max(1, round((stop - start) * rows / batch_size)) for start, stop in self.windows]
        self.data_batches = sum(self.batches)
        self.epoch, self.batch = 0, 0

    def __len__(self) -> int:
        return self.data_batches + self.extra

    def __iter__(self) -> Iterator[Batch]:
        if self.batch >= len(self):  # a checkpoint taken at the very end of a pass: go on with the next
            self.epoch, self.batch = self.epoch + 1, 0
        first = 0
        for window, count in enumerate(self.batches):
            if self.batch < first + count:
                values, numbers, order = self._window(window)
                for number in range(self.batch - first, count):
                    self.batch += 1
                    yield self._cut(values, numbers, order, number, count)
            first += count
        empty = self.data.rows_of([])
        while self.batch < len(self):
            self.batch += 1
            yield (*empty, torch.zeros(0, dtype=torch.int64))
        self.epoch, self.batch = self.epoch + 1, 0
        if self.shuffle:
            self.data.forget_sample()

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "batch": self.batch, "world": self.data.world}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Raises:
            ValueError: another number of processes in mid-pass: each has its own windows, and rows would
                count twice.
        """
        if 0 < state["batch"] < len(self) and state["world"] != self.data.world:
            raise ValueError(
                f"data=harvest goes on in mid-pass only with as many processes as before, {state['world']}; "
                f"found {self.data.world}.  Harvest to disk with scripts/harvest.py for runs that are resized"
            )
        self.epoch, self.batch = state["epoch"], state["batch"]

    def set_epoch(self, epoch: int) -> None:
        """Begin pass ``epoch``, unless it is the one under way."""
        if epoch > self.epoch:
            self.epoch, self.batch = epoch, 0

    def _window(self, window: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of this process's share of a window, the example of each, and the order to give them out
        in."""
        positions = np.arange(*self.windows[window])
        if self.shuffle:
            positions = shuffled(positions, len(self.examples), self.data.seed, self.epoch)
        mine = self.examples.rows(positions)[self.data.rank :: self.data.world]
        values, numbers = self.data.rows_of(mine.tolist(), first_pass=self.shuffle and self.epoch == 0)
        if not self.shuffle:
            return values, numbers, torch.arange(len(values), device=values.device)
        seed = np.random.SeedSequence([self.data.seed, self.epoch, window, self.data.rank]).generate_state(1)[
            0
        ]
        order = torch.randperm(len(values), generator=torch.Generator().manual_seed(int(seed)))
        return values, numbers, order.to(values.device)

    def _cut(self, values: Tensor, numbers: Tensor, order: Tensor, batch: int, batches: int) -> Batch:
        start, stop = len(order) * batch // batches, len(order) * (batch + 1) // batches
        chosen = order[start:stop]
        parts = max(1, round(self.batch_size / self.minibatch))
        sizes = np.diff(np.linspace(0, stop - start, parts + 1).astype(np.int64))
        return values[chosen], numbers[chosen], torch.from_numpy(sizes)
