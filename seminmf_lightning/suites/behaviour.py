"""Behaviour: what a network still does where a layer's activations are replaced by their reconstruction.

Legend:  A (n, d) activations that are replaced   Z (n, k) codes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.checks import one_of, whole_number
from seminmf_lightning.data.build import build_data, settings_from_file
from seminmf_lightning.data.network import network_of
from seminmf_lightning.dictionary_file import load_dictionary
from seminmf_lightning.harvest import Harvester, HarvestRecipe
from seminmf_lightning.harvest.activations import named_arguments
from seminmf_lightning.harvest.adapters import Item
from seminmf_lightning.metrics import ReconstructionMetrics
from seminmf_lightning.network.hooks import Change, changed
from seminmf_lightning.network.of_run import check_network_of_run, layer_of_run, model_of_run
from seminmf_lightning.network.rows import rows_of
from seminmf_lightning.suites.base import Context, Estimate, Line, Result, Suite
from seminmf_lightning.suites.outputs import TASKS, compared, ratio, task_of
from seminmf_lightning.suites.probing.lines import Features, beside, of_run
from seminmf_lightning.suites.probing.others import other_lines, training_rows

TUNING_EXAMPLES, TUNING_ROWS = 256, 1024
"""Examples and activations that encoders are brought to their nonzeros on."""
UNTOUCHED, MEAN = "untouched", "mean"
BASES = ("PCA", "neurons", "dense probe")
"""Lines of other suites that reconstruct everything, or nothing."""
MEASURES = {
    "language": {"ce": "cross-entropy", "kl": "KL", "agreement": "top-1"},
    "classes": {"kl": "KL", "agreement": "top-1"}, "embedding": {"cosine": "cosine"},
}  # fmt: skip
"""Columns of each task; the first is compared with the run's own, example by example."""


@dataclass(frozen=True, kw_only=True)
class Behaviour(Suite):
    """Replace the activations of a layer, by every line of the table, and compare the outputs.

    The whole data set passes through the network once per line, in batches; only sums per example are kept.
    Standard errors are over examples.
    """

    task: str | None = None
    """``language``, ``classes`` or ``embedding``; None: by what the network returns."""
    layer: str | None = None
    """Layer of the network; None: that of the run's harvest."""
    tokens: str = "no_special"
    """Which activations are replaced: ``no_special`` or ``all``, never padding."""
    skip: int = 0
    """First examples to leave out, such as those that the run was trained on."""
    limit: int | None = None
    """Number of examples after them; None: all."""
    batch_size: int = 16
    """Images or windows of text in one forward pass."""
    nonzeros: int | None = None
    """Nonzeros per row of encoders and baselines; None: as many as the run's own codes have."""
    against: Sequence[str] = ()
    """Other runs of the same layer, each with its own encoder."""
    sae: Sequence[str] = ()
    """Sparse autoencoders: safetensors files with W_enc, b_enc, W_dec and b_dec."""
    sae_nonzeros: int | None = None
    """Codes that TopK keeps; None: ``k`` in the file's metadata, else ReLU alone."""
    seed: int = 0
    """Seed of random atoms and data rows."""

    def __post_init__(self) -> None:
        for name in ("against", "sae"):
            given = getattr(self, name)
            object.__setattr__(self, name, list(given) if isinstance(given, list | tuple) else [given])
        if self.task is not None:
            one_of("suite.behaviour.task", self.task, TASKS)
        one_of("suite.behaviour.tokens", self.tokens, ("no_special", "all"))
        for name, least in (("skip", 0), ("batch_size", 1), ("seed", 0)):
            whole_number(f"suite.behaviour.{name}", getattr(self, name), least)
        for name in ("limit", "nonzeros", "sae_nonzeros"):
            if getattr(self, name) is not None:
                whole_number(f"suite.behaviour.{name}", getattr(self, name), 1)

    def run(self, context: Context) -> Result:
        saved = load_dictionary(context.run)
        data = context.data or settings_from_file(context.run, saved.config.get("data"))
        origin = saved.config.get("network") or network_of(build_data(data))
        others = other_lines(
            context.run, saved, self.against, self.sae, self.sae_nonzeros, "suite.behaviour", context.device
        )
        harvester = self._harvester(context, origin)
        notes = _other_network(origin, context, harvester)
        examples = range(len(harvester.inputs))[self.skip :][: self.limit]
        if not examples:
            raise ValueError(
                f"{len(harvester.inputs)} examples, but suite.behaviour.skip={self.skip}; lower it"
            )
        sample = training_rows(data, saved).to(context.device)
        tuning = harvester.harvest(harvester.few(harvester.read(examples[:TUNING_EXAMPLES]), 64))
        if tuning is None:
            raise ValueError("no example can be read, or none has a token")
        ((layer, rows),) = tuning.rows.items()
        if rows.values.shape[1] != saved.D.shape[1]:
            raise ValueError(
                f"layer {layer} is {rows.values.shape[1]} features wide, but the dictionary has "
                f"{saved.D.shape[1]}: give suite.behaviour.layer=... that {context.run} was learned from"
            )
        chosen = torch.randperm(len(rows.values), generator=torch.Generator().manual_seed(self.seed))
        few = rows.values[chosen[:TUNING_ROWS]].float()
        mean = sample.double().mean(dim=0).float()
        lines = [of_run("run", saved, context.device)]
        lines += [
            one for one in beside(saved, sample, few, self.nonzeros, self.seed) if one.name not in BASES
        ]
        lines += [
            *others,
            Features(MEAN, 1, lambda A: A.new_zeros(len(A), 1), lambda Z: mean.expand(len(Z), -1)),
        ]
        task, sums, metrics, skipped = self._sums(harvester, examples, lines, context)
        if skipped:
            notes.append(f"Left out: {len(skipped):,} examples that cannot be read, such as {skipped[0]}.")
        return self._result(task, sums, metrics, notes)

    def _harvester(self, context: Context, origin: Mapping[str, Any] | None) -> Harvester:
        """Return the network, its inputs and the layer; a ValueError says which of them to give."""
        if context.inputs is None:
            raise ValueError("suite=behaviour runs the network on your inputs: inputs=text inputs.path=...")
        model = context.model or model_of_run(origin, context.run)
        how = {"tokens": self.tokens, "batch_size": self.batch_size}
        recipe = HarvestRecipe(model, context.inputs, self.layer or (), **how)  # type: ignore[arg-type]
        layer = layer_of_run(recipe.loaded.network, origin, self.layer, context.run, "suite.behaviour.layer")
        recipe.layers = str(layer)
        return recipe.harvester(context.device)

    def _sums(
        self, harvester: Harvester, examples: range, lines: Sequence[Features], context: Context
    ) -> tuple[str, dict[str, dict[str, np.ndarray]], dict[str, ReconstructionMetrics], list[str]]:
        """Return the task, sums (examples,) by line and name, how well each line reconstructs, and what could
        not be read."""
        skipped: list[str] = []
        sums: dict[str, dict[str, np.ndarray]] = {}
        metrics: dict[str, ReconstructionMetrics] = {}
        task, done = self.task, 0
        for pool in harvester.pools(harvester.read(examples)):
            skipped += [read.skipped for read in pool if read.skipped is not None]
            items = sorted((item for read in pool for item in read.items), key=lambda item: -item.tokens)
            for start in range(0, len(items), self.batch_size):
                batch = items[start : start + self.batch_size]
                before, arguments = _outputs(harvester, batch, None)
                task = task_of(harvester.loaded.network, before, task)
                at = [item.example - examples.start for item in batch]
                for line in (None, *lines):
                    name, after = UNTOUCHED, before
                    if line is not None:
                        name = line.name
                        change = self._replacing(harvester, batch, line, metrics)
                        after, _ = _outputs(harvester, batch, change)
                    for key, values in compared(task, before, after, arguments).items():
                        total = sums.setdefault(name, {}).setdefault(key, np.zeros(len(examples)))
                        np.add.at(total, at, values.double().cpu().numpy())
            done += len({read.example for read in pool})
            context.show("examples", done, len(examples))
        assert task is not None
        return task, sums, metrics, skipped

    def _replacing(
        self, harvester: Harvester, items: Sequence[Item], line: Features,
        metrics: dict[str, ReconstructionMetrics],
    ) -> Change:  # fmt: skip
        """Return the change that puts a line's reconstruction where the mask of tokens allows."""

        def change(x: Tensor) -> Tensor:
            found = rows_of(x, harvester.widths[harvester.layers[0]], "auto", str(harvester.layers[0]))
            new = found.values.float().clone()
            mask = self._mask(harvester, items, new)
            A = new[mask]
            assert line.decode is not None
            Z = line.codes(A)
            A_hat = line.decode(Z)
            if line.name not in metrics:
                metrics[line.name] = ReconstructionMetrics(line.width, A.shape[1], 0.0).to(A.device)
            metrics[line.name].update(A, A_hat, Z)
            new[mask] = A_hat
            return found.restore(new.to(x.dtype))

        return change

    def _mask(self, harvester: Harvester, items: Sequence[Item], A: Tensor) -> Tensor:
        mask = torch.zeros(A.shape[:-1], dtype=torch.bool)
        for number, item in enumerate(items):
            if A.ndim == 2:  # one row per example, as of a pooler
                mask[number] = True
            elif item.special is None:
                prefix = harvester.loaded.feed.prefix_tokens if A.ndim == 3 else 0
                mask[number, 0 if self.tokens == "all" else prefix :] = True
            else:
                mask[number, : item.tokens] = True if self.tokens == "all" else ~item.special
        return mask.to(A.device)

    def _result(
        self, task: str, sums: Mapping[str, Mapping[str, np.ndarray]],
        metrics: Mapping[str, ReconstructionMetrics], notes: list[str],
    ) -> Result:  # fmt: skip
        first, lines = next(iter(metrics)), []
        measures = MEASURES[task]
        main, worst = next(iter(measures)), sums[MEAN]["loss"]
        for name, values in sums.items():
            measured = metrics[name].compute() if name in metrics else {}
            entries: dict[str, Estimate] = {}
            entries |= {key: Estimate(measured[key]) for key in ("l0", "r2") if key in measured}
            entries |= {key: ratio(values[key], values["n"]) for key in measures}
            lost = ratio(values["loss"], worst)
            entries["recovered"] = Estimate(1 - lost.value, lost.error)
            if name not in (first, UNTOUCHED):
                entries["minus_run"] = ratio(values[main] - sums[first][main], values["n"])
            lines.append(Line(name, entries))
        read = int((sums[UNTOUCHED]["n"] > 0).sum())
        heading = f"{measures[main]} - run"
        return Result(
            title=f"Behaviour with a layer replaced, {task}, {read:,} examples", lines=lines,
            columns={"l0": "l0", "r2": "r2", **measures, "recovered": "recovered", "minus_run": heading},
            plotted=("cosine",) if task == "embedding" else ("recovered",),
            notes=[
                f"recovered: 1 - loss / loss of the line {MEAN!r}; the loss is "
                + {"language": "the rise of the cross-entropy, in nats per token",
                   "classes": "KL(untouched || replaced)", "embedding": "1 - cosine"}[task] + ".",
                f"{heading}: paired difference to the line {first!r}; below two standard errors it is a tie.",
                f"Replaced: {'every token' if self.tokens == 'all' else 'every token but special ones'}.",
                *notes,
            ],
            details={"task": task, "examples": read},
        )  # fmt: skip


def _other_network(origin: Mapping[str, Any] | None, context: Context, harvester: Harvester) -> list[str]:
    """Return a note if the network or the layer is not that of the run."""
    try:
        check_network_of_run(origin, context.run, harvester, context.model is not None)
    except ValueError as error:
        return [f"Not the network of the run: {str(error).partition('; force')[0]}."]
    return []


def _outputs(harvester: Harvester, items: list[Item], change: Change | None) -> tuple[Any, Mapping[str, Any]]:
    """Run a batch, and return what the network returned and was given."""
    network, seen = harvester.loaded.network, {}

    def keep(module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        seen["found"] = output, named_arguments(module, args, kwargs)

    with network.register_forward_hook(keep, with_kwargs=True), torch.inference_mode():
        if change is None:
            harvester.loaded.feed.call(network, items, harvester.device)
        else:
            with changed(network, harvester.layers[0], change):
                harvester.loaded.feed.call(network, items, harvester.device)
    return seen["found"]
