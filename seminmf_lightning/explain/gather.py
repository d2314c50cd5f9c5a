"""Read and encode all rows once, keeping only what the report shows.

Legend:  A (m, d) activations of one batch   Z (m, k) codes   D (k, d) dictionary
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.core.sums import SecondMoment
from seminmf_lightning.data import ActivationDataModule
from seminmf_lightning.explain.code_sample import CodeSample
from seminmf_lightning.explain.provenance import Origins
from seminmf_lightning.explain.strongest import ConceptSums, TopExamples
from seminmf_lightning.learners import Recipe
from seminmf_lightning.metrics import ReconstructionMetrics

MAX_SPECTRUM_FEATURES = 8192
"""Most features for which the second moment (d, d) is summed and a spectrum drawn."""
ENCODED_ROWS = 8192
"""Rows per batch when the rows around each example are encoded again."""

EncodeRanges = Callable[[Sequence[range]], Iterator[Tensor]]


class Model(Protocol):
    """The parts of a trained module that a report uses."""

    recipe: Recipe
    scale: Tensor
    dictionary: torch.nn.Parameter

    @property
    def normalizer(self) -> Normalizer: ...

    def encode(self, A: Tensor) -> Tensor: ...

    def plain_recipe(self) -> dict[str, Any]: ...


@dataclass
class Summary:
    """Everything on the page that depends on all rows; its memory does not grow with the number of rows."""

    D: Tensor
    top: TopExamples
    sums: ConceptSums
    sample: CodeSample
    metrics: ReconstructionMetrics
    moment: SecondMoment | None

    @classmethod
    def empty(cls, D: Tensor, n_rows: int, examples: int, l1_penalty: float = 0.0) -> Summary:
        k, d = D.shape
        moment = SecondMoment.empty(d) if d <= MAX_SPECTRUM_FEATURES else None
        metrics = ReconstructionMetrics(k, d, l1_penalty)
        return cls(
            D.float(), TopExamples(k, examples), ConceptSums(k), CodeSample(k, n_rows), metrics, moment
        )

    def update(self, A: Tensor, Z: Tensor, row_ids: Tensor, groups: Tensor) -> None:
        """Add normalised rows A (m, d), their codes Z (m, k), row ids (m,) and example ids (m,)."""
        self.top.update(Z, row_ids, groups)
        self.sums.update(Z)
        self.sample.update(Z, row_ids)
        self.metrics.to(A.device).update(A, Z @ self.D.to(Z), Z)
        if self.moment is not None:
            self.moment.to_(A.device)
            self.moment.add_rows_(A)

    @property
    def energy(self) -> Tensor:
        """Share (k,) of each concept in ``sum_j ||Z_j||^2 ||D_j||^2``, float64."""
        energy = self.sums.squares * self.D.double().square().sum(dim=1)
        return energy / energy.sum().clamp(min=1e-300)


def gather(
    model: Model, data: ActivationDataModule, origins: Origins, examples: int, batch_rows: int
) -> Summary:
    """Encode all usable rows of ``data`` in batches, on the device of ``model``."""
    D = model.dictionary.detach()
    summary = Summary.empty(D.cpu(), len(data.source), examples, model.recipe.l1_penalty)
    starts = range(0, len(data.source), batch_rows)
    for start in track(starts, "rows", disable=len(starts) < 2):
        stop = min(start + batch_rows, len(data.source))
        A, row_ids = (
            part.to(D.device)
            for part in data.usable(data.source.read_range(start, stop), torch.arange(start, stop))
        )
        A = A if A.dtype in (torch.float32, torch.float64) else A.float()
        Z = model.encode(A)
        groups = torch.from_numpy(np.array(origins.groups(start, stop))).to(D.device)[row_ids - start]
        try:
            if not Z.float().isfinite().all():
                raise FloatingPointError("codes beyond float32")
            summary.update(model.normalizer.apply(A).to(Z), Z, row_ids, groups)
        except FloatingPointError as error:
            raise ValueError(data.explain(A, row_ids)) from error
    return summary


def encode_ranges(model: Model, data: ActivationDataModule, ranges: Sequence[range]) -> Iterator[Tensor]:
    """Yield the codes (len(rows), k) of each range of rows, sorted by their start.

    Rows that are skipped count as rows of zeros; rows that successive ranges share are encoded once.
    """
    pending: list[range] = []
    count, end = 0, 0
    for number, rows in enumerate(ranges):
        pending.append(rows)
        count, end = count + max(0, rows.stop - max(rows.start, end)), max(end, rows.stop)
        if count >= ENCODED_ROWS or number + 1 == len(ranges):
            row_ids = np.unique(np.concatenate([np.arange(one.start, one.stop) for one in pending]))
            A = data.source.read(row_ids).nan_to_num(0, 0, 0).to(model.dictionary.device)
            Z = model.encode(A).float().cpu()
            for one in pending:
                first = int(np.searchsorted(row_ids, one.start))
                yield Z[first : first + len(one)]
            pending, count = [], 0
