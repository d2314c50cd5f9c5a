"""Read the concepts of texts and images: the codes of every token and patch of a layer.

Legend:  A (m, d) activations of the tokens of one example   Z (m, k) codes
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from seminmf_lightning.estimator import SemiNMF
from seminmf_lightning.harvest import Harvester
from seminmf_lightning.harvest.inputs import Inputs
from seminmf_lightning.harvest.inputs.base import digest_of


@dataclass
class GivenTexts(Inputs):
    """Texts from memory."""

    texts: Sequence[str]
    kind = "text"

    def __len__(self) -> int:
        return len(self.texts)

    def read(self, example: int) -> str:
        return self.texts[example]

    def digest(self) -> str:
        return digest_of(self.texts)

    def identify(self, example: int) -> str:
        return "text" if len(self.texts) == 1 else f"text {example}"


class Example(NamedTuple):
    """The codes of one example, or of successive windows of a long one."""

    name: str
    record: dict[str, Any]
    """Its ``text``, or the ``size`` of the image."""
    origin: dict[str, np.ndarray]
    """Columns (m,); see :class:`~seminmf_lightning.harvest.row_selection.Rows`."""
    codes: Tensor
    skipped: str | None = None
    """Why it could not be read."""

    def tokens(self) -> list[str]:
        """Return the text of each token; for a patch its row and column."""
        if "start" in self.origin:
            spans = zip(self.origin["start"].tolist(), self.origin["stop"].tolist(), strict=True)
            return [self.record["text"][start:stop] if start >= 0 else "" for start, stop in spans]
        if "y" in self.origin and (self.origin["y"] >= 0).all():
            cells = zip(self.origin["y"].tolist(), self.origin["x"].tolist(), strict=True)
            return [f"row {y}, column {x}" for y, x in cells]
        return [f"position {one}" if one >= 0 else "all" for one in self.origin["position"].tolist()]


def read_concepts(harvester: Harvester, dictionary: SemiNMF) -> Iterator[Example]:
    """Yield the codes of every example, in order; codes are those of :meth:`SemiNMF.encode`.

    Raises:
        ValueError: activations of another width than the dictionary's.
    """
    k, d = dictionary.get_dictionary().shape
    for pool in harvester.pools(harvester.read(range(len(harvester.inputs)))):
        harvested = harvester.harvest(pool)
        if harvested is not None:
            ((layer, rows),) = harvested.rows.items()
            if rows.values.shape[1] != d:
                raise ValueError(
                    f"layer {layer!s} is {rows.values.shape[1]} features wide, but the dictionary has {d}: "
                    "give the layer that it was learned from"
                )
            Z = dictionary.encode(rows.values).cpu()
            origin = rows.origin
        for read in pool:
            if harvested is None or not read.items:
                empty = np.zeros(0, dtype=np.int64)
                nothing = {"example": empty, "position": empty}
                yield Example(read.name, read.record, nothing, Tensor(0, k), read.skipped)
                continue
            at = np.flatnonzero(origin["example"] == read.example)
            yield Example(
                read.name, read.record, {name: column[at] for name, column in origin.items()}, Z[at]
            )


def strongest(Z: Tensor, top: int) -> list[list[tuple[int, float]]]:
    """Return the concepts of largest absolute code of each row of Z (m, k), and their codes; no zeros.

    >>> import torch
    >>> strongest(torch.tensor([[0.0, -2.0, 1.0], [0.0, 0.0, 0.0]]), 2)
    [[(1, -2.0), (2, 1.0)], []]
    """
    order = Z.abs().argsort(dim=1, descending=True, stable=True)[:, :top]
    codes = Z.gather(1, order)
    return [
        [(concept, code) for concept, code in zip(concepts, values, strict=True) if code]
        for concepts, values in zip(order.tolist(), codes.tolist(), strict=True)
    ]
