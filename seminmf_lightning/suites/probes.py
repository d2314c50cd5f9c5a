"""k-sparse probing: do a few concepts tell what a text is about?

For each binary task the best m concepts are chosen on training texts, and a logistic regression on them is
scored by its AUC on the others, beside other encoders, other dictionaries and baselines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.checks import real_number, whole_number
from seminmf_lightning.data.build import settings_from_file
from seminmf_lightning.dictionary_file import load_dictionary
from seminmf_lightning.metrics import ReconstructionMetrics
from seminmf_lightning.suites.base import Context, Estimate, Line, Result, Suite, estimate
from seminmf_lightning.suites.probing.lines import DENSE, Features, beside, of_run
from seminmf_lightning.suites.probing.others import other_lines, training_rows
from seminmf_lightning.suites.probing.statistics import POOLS, RULES, folds_of, name_of, pooled, probe
from seminmf_lightning.suites.probing.tasks import Task, read_tasks
from seminmf_lightning.suites.probing.texts import TextReader, reader_of_model, reader_of_store

BLOCK = 8192
"""About how many activations are encoded at once; a text is never cut."""
TUNING_TEXTS, TUNING_ROWS = 256, 1024
"""Texts and activations that encoders are brought to their nonzeros on."""
MEASURED = 2048
"""About how many activations of each task r2 and l0 are measured on."""
SHOWN = POOLS[0], "t"
"""Pooling and selection rule of the table and the picture; the file has all of them."""


@dataclass(frozen=True, kw_only=True)
class Probes(Suite):
    """Probe every line of the table on every task; standard errors are over tasks.

    Texts pass through the network once; a task's activations are encoded by all lines and only the pooled
    features are kept, so that memory does not grow with the number of tasks.
    """

    tasks: str | None = None
    """A folder with one CSV per task, one CSV, the folder of a Hugging Face data set, or ``sae-probes``, the
    113 tasks inside that package; None: these."""
    text: str = "text"
    """Column of the text."""
    label: str = "label"
    """Column of the label."""
    count: int | None = None
    """Number of tasks, drawn at random; None: all."""
    rows_per_task: int | None = 512
    """Most texts of a task, drawn at random from each class by its share; None: all."""
    seed: int = 0
    """Seed of these choices, of the folds and of the random atoms."""
    folds: int = 3
    """Stratified folds; the AUC is the mean over them."""
    best: Sequence[int] = (1, 5, 16)
    """Numbers of concepts that the probe may use."""
    c: float = 1.0
    """Inverse weight of the L2 penalty of the logistic regression, on standardised features."""
    windows: int | None = 1
    """Windows of tokens read of each text, from its start; None: all."""
    store: str | None = None
    """The harvest that names the model and the layer; None: that of the run's data."""
    model: str | None = None
    """Instead of a harvest: the path of a model of transformers, as ``model.path`` of the command harvest."""
    layer: str | None = None
    """Layer of that model, or of a harvest with several."""
    max_length: int | None = None
    """Tokens per window; None: as harvested, or what the model takes."""
    batch_size: int = 32
    """Windows in one forward pass."""
    nonzeros: int | None = None
    """Nonzeros per row of the other encoders and baselines; None: as many as the run's own codes have."""
    halves: bool = False
    """Also show codes of both signs as two features per concept."""
    against: Sequence[str] = ()
    """Other runs of the same layer, each with its own encoder."""
    sae: Sequence[str] = ()
    """Sparse autoencoders: safetensors files with W_enc, b_enc, W_dec and b_dec."""
    sae_nonzeros: int | None = None
    """Codes that TopK keeps; None: ``k`` in the file's metadata, else ReLU alone."""

    def __post_init__(self) -> None:
        for name in ("best", "against", "sae"):
            given = getattr(self, name)
            object.__setattr__(self, name, list(given) if isinstance(given, list | tuple) else [given])
        for name, least in (("seed", 0), ("folds", 2), ("batch_size", 1)):
            whole_number(f"suite.probes.{name}", getattr(self, name), least)
        for name in ("count", "rows_per_task", "windows", "max_length", "nonzeros", "sae_nonzeros"):
            if getattr(self, name) is not None:
                whole_number(f"suite.probes.{name}", getattr(self, name), 1)
        if not self.best:
            raise ValueError("suite.probes.best is empty; give numbers of concepts, such as [1,5,16]")
        for one in self.best:
            whole_number("suite.probes.best", one, 1)
        real_number("suite.probes.c", self.c, 0, exclusive=True)
        if self.model is not None and (self.layer is None or self.store is not None):
            raise ValueError("suite.probes.model needs suite.probes.layer, and excludes suite.probes.store")

    def run(self, context: Context) -> Result:
        tasks = read_tasks(
            self.tasks, text=self.text, label=self.label, count=self.count, rows=self.rows_per_task,
            folds=self.folds, seed=self.seed,
        )  # fmt: skip
        saved = load_dictionary(context.run)
        data = context.data or settings_from_file(context.run, saved.config.get("data"))
        others = other_lines(
            context.run, saved, self.against, self.sae, self.sae_nonzeros, "suite.probes", context.device
        )
        sample, reader = training_rows(data, saved).to(context.device), self._reader(data, context)
        few = _few_rows(reader, tasks, self.seed)
        lines = [of_run("run", saved, context.device)]
        lines += [*beside(saved, sample, few, self.nonzeros, self.seed), *others]
        metrics = {
            line.name: ReconstructionMetrics(line.width, saved.D.shape[1], 0.0).to(context.device)
            for line in lines if line.decode is not None
        }  # fmt: skip
        scores: dict[str, list[dict[str, float]]] = {}
        described = []
        for number, task in enumerate(tasks):
            context.show(task.name, number, len(tasks))
            features, facts = _features(reader, task, lines, metrics, self.halves)
            folds = folds_of(task.labels, self.folds, self.seed)
            for name, pools in features.items():
                values = probe(pools, task.labels, folds, self.best, self.c, dense=name == DENSE)
                scores.setdefault(name, []).append(values)
            described.append(facts)
        context.show("done", len(tasks), len(tasks))
        return self._result(scores, metrics, described)

    def _reader(self, data: Mapping[str, Any], context: Context) -> TextReader:
        how = {"windows": self.windows, "batch_size": self.batch_size, "device": context.device}
        if self.model is not None:
            assert self.layer is not None
            return reader_of_model(self.model, self.layer, self.max_length, **how)  # type: ignore[arg-type]
        if self.store is None and data["name"] != "shards":
            raise ValueError(
                f"{context.run} was trained on data={data['name']}, which does not name a model: give "
                "suite.probes.store=HARVEST, or suite.probes.model=PATH suite.probes.layer=NAME"
            )
        store, layer = self.store or str(data["path"]), self.layer
        if self.store is None and layer is None:
            layer = data.get("layer")
        return reader_of_store(store, layer, self.max_length, **how)  # type: ignore[arg-type]

    def _result(
        self, scores: Mapping[str, Sequence[Mapping[str, float]]],
        metrics: Mapping[str, ReconstructionMetrics], described: list[dict[str, Any]],
    ) -> Result:  # fmt: skip
        first, lines = next(iter(scores)), []
        names = [name_of(m, pool, rule) for m in self.best for pool in POOLS for rule in RULES]
        for line, values in scores.items():
            measured = metrics[line].compute() if line in metrics else {}
            entries: dict[str, Estimate] = {}
            entries |= {name: Estimate(measured[name]) for name in ("l0", "r2") if name in measured}
            for name in names:
                ours = [one[name] for one in values]
                entries[name] = estimate(ours)
                if line != first:
                    base = [one[name] for one in scores[first]]
                    entries[f"{name}_minus_run"] = estimate(np.subtract(ours, base))
            lines.append(Line(line, entries))
        shown = {m: name_of(m, *SHOWN) for m in self.best}
        columns = {"l0": "l0", "r2": "r2"} | {name: f"AUC @{m}" for m, name in shown.items()}
        columns |= {f"{name}_minus_run": f"@{m} - run" for m, name in shown.items()}
        texts, longer, empty = (sum(one[key] for one in described) for key in ("texts", "longer", "empty"))
        notes = [
            f"AUC @m: held-out AUC of a logistic regression on the best m features, {SHOWN[0]} pooled, "
            f"chosen by |{SHOWN[1]}|; mean over {len(described)} tasks +- standard error over tasks.",
            f"@m - run: paired difference to the line {first!r}; below two standard errors it is a tie.",
            f"l0, r2: on the first {MEASURED:,} or so activations of each task.",
        ]
        if longer:
            notes.append(f"{longer:,} of {texts:,} texts are cut: suite.probes.windows={self.windows}.")
        if empty:
            notes.append(f"{empty:,} of {texts:,} texts have no token: their features are 0.")
        return Result(
            title=f"k-sparse probing, {len(described)} tasks, {texts:,} texts", lines=lines, columns=columns,
            plotted=tuple(shown.values()), notes=notes,
            details={"tasks": described, "scores": {line: list(values) for line, values in scores.items()}},
        )  # fmt: skip


def _few_rows(reader: TextReader, tasks: Sequence[Task], seed: int) -> Tensor:
    """Return some activations of the texts of all tasks, for encoders to be tuned on; no label is used."""
    each = -(-TUNING_TEXTS // len(tasks))
    texts = [text for task in tasks for text in task.texts[:each]]
    rows = reader.read(replace(tasks[0], name="all tasks", texts=texts)).rows
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:TUNING_ROWS]]


def _features(
    reader: TextReader,
    task: Task,
    lines: Sequence[Features],
    metrics: Mapping[str, ReconstructionMetrics],
    halves: bool,
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
    """Return the pooled features of every line for the texts of a task, and what is said of the task."""
    read = reader.read(task)
    parts: dict[str, list[dict[str, np.ndarray]]] = {}
    start = 0
    for block in _blocks(read.counts, BLOCK):
        counts = read.counts[block]
        A = read.rows[start : start + int(counts.sum())]
        for line in lines:
            Z = line.codes(A)
            parts.setdefault(line.name, []).append(pooled(Z.cpu().numpy(), counts))
            if halves and line.signed:
                Z_2 = torch.cat([Z.clamp(min=0), (-Z).clamp(min=0)], dim=1)
                parts.setdefault(f"{line.name}, halves", []).append(pooled(Z_2.cpu().numpy(), counts))
            if line.decode is not None and start == 0:
                few = slice(MEASURED)
                metrics[line.name].update(A[few], line.decode(Z[few]), Z[few])
        start += len(A)
    features = {
        name: {pool: np.concatenate([one[pool] for one in blocks]) for pool in POOLS}
        for name, blocks in parts.items()
    }
    facts = {
        "task": task.name, "texts": len(task.texts), "positive": int(task.labels.sum()),
        "classes": list(task.classes), "repeated": task.repeated, "longer": read.longer,
        "empty": int((read.counts == 0).sum()),
    }  # fmt: skip
    return features, facts


def _blocks(counts: np.ndarray, size: int) -> list[slice]:
    """Return slices of texts with about ``size`` rows each.

    >>> _blocks(np.array([3, 3, 3]), 5)
    [slice(0, 2, None), slice(2, 3, None)]
    """
    at = np.cumsum(counts)
    cuts = [0]
    while cuts[-1] < len(counts):
        before = int(at[cuts[-1] - 1]) if cuts[-1] else 0
        cuts.append(min(len(counts), int(np.searchsorted(at, before + size)) + 1))
    return [slice(*cut) for cut in pairwise(cuts)]
