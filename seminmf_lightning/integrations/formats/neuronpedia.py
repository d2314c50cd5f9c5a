"""Neuronpedia: batches of features with their strongest texts, as SAEDashboard writes and uploads them.

    OUTPUT/batch-0.json, batch-1.json, ...

Keys as of ``NeuronpediaDashboardBatch`` in sae-dashboard 0.8.0, whose ``neuronpedia_export`` turns a folder
of them into what Neuronpedia imports.  Logits and correlated features are left empty: no network is run.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seminmf_lightning.core.checks import whole_number
from seminmf_lightning.explain.strongest import ConceptSums, Nonzeros, TopExamples, nonzeros
from seminmf_lightning.integrations.formats.base import Content, Format
from seminmf_lightning.integrations.token_windows import TokenWindows, token_windows

ENCODED_ROWS = 8192
"""Rows encoded again at a time, for the tokens around the strongest ones."""
SAMPLED_ROWS = 100_000
"""About how many rows histograms are made from."""
BARS = 40
NEURONS = 3
"""Neurons listed for each feature: those of the largest weights."""

Activation = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Neuronpedia(Format):
    """``batch-<number>.json``."""

    model_id: str | None = None
    """Name of the model on Neuronpedia; None: the last part of the harvested model's path."""
    layer: int | None = None
    """Number of the layer; None: the last number in the harvested layer's name."""
    sae_set: str = "seminmf"
    """Name of the set of dictionaries on Neuronpedia."""
    examples: int = 20
    """Texts per feature."""
    context: int = 32
    """Tokens shown on each side of the strongest one."""
    features_per_batch: int = 128
    """Features in a file."""
    vectors: bool = True
    """Write the atoms, with which Neuronpedia can steer."""
    dataset: str = ""
    """Name of the texts."""

    def __post_init__(self) -> None:
        for name, least in (("examples", 1), ("context", 0), ("features_per_batch", 1)):
            whole_number(f"format.{name}", getattr(self, name), least)
        if self.layer is not None:
            whole_number("format.layer", self.layer, 0)

    def write(self, folder: Path, content: Content) -> list[str]:
        store, layer = content.origin()
        model = (content.model.network or {"model": {}})["model"].get("path", "")
        if not (model_id := self.model_id or model.rpartition("/")[2]):
            raise ValueError("the run does not say which model: give format.model_id=gpt2-small, for example")
        head = {
            "model_id": model_id, "layer": number_of(layer) if self.layer is None else self.layer,
            "sae_set": self.sae_set, "sae_id_suffix": None,
        }  # fmt: skip
        windows = token_windows(store, layer)
        top, sums, sample = _gathered(content, windows, self.examples)
        activations = self._activations(content, windows, top)
        W, size = content.atoms.cpu(), self.features_per_batch
        m = len(W)
        about = {
            "n_prompts_total": len(windows.tokens), "n_tokens_in_prompt": windows.tokens.shape[1],
            "dataset": self.dataset,
        }  # fmt: skip
        for number, first in enumerate(range(0, m, size)):
            features = [
                {"feature_index": feature}
                | _weights(W[feature], self.vectors)
                | _histogram(sample, feature, float(sums.density[feature]))
                | about
                | {"activations": activations[feature]}
                for feature in range(first, min(first + size, m))
            ]
            text = json.dumps(head | {"features": features}, allow_nan=False, ensure_ascii=False)
            (folder / f"batch-{number}.json").write_text(text, encoding="utf-8")
        shown = sum(map(len, activations))
        return [f"{m:,} features with {shown:,} texts, in {-(-m // size):,} files"]

    def _activations(
        self, content: Content, windows: TokenWindows, top: TopExamples
    ) -> list[list[Activation]]:
        """Return for each feature its strongest windows, strongest first, with the values of their tokens."""
        values, row_ids = top.signs()[0]
        asked: dict[int, list[tuple[int, int]]] = {}
        """Window -> features that show it, and at which place."""
        for feature, place in (row_ids >= 0).nonzero().tolist():
            window = int(windows.window[int(row_ids[feature, place])])
            asked.setdefault(window, []).append((feature, place))
        found: list[dict[int, Activation]] = [{} for _ in row_ids]
        for some in _groups_of(sorted(asked), windows):
            rows = [windows.rows_of(window) for window in some]
            F = content.features(
                content.read(torch.cat([torch.arange(r.start, r.stop) for r in rows]).numpy())
            )
            for window, part, codes in zip(some, rows, F.cpu().split([len(r) for r in rows]), strict=True):
                strings, at = (
                    windows.strings(window),
                    torch.from_numpy(windows.position[part.start : part.stop]),
                )
                for feature, place in asked[window]:
                    line = torch.zeros(len(strings))
                    line[at] = codes[:, feature]
                    strongest = int(windows.position[int(row_ids[feature, place])])
                    found[feature][place] = _activation(
                        strings, line, strongest, self.context, float(values[feature, 0])
                    )
        return [[one[place] for place in sorted(one)] for one in found]


def number_of(layer: str) -> int:
    """Return the number of the block that a layer is in, or a ValueError if its name has none.

    >>> number_of("transformer.h.5.mlp.fc2")
    5
    """
    numbers = [int(part) for part in re.split(r"[.:@]", layer) if part.isdigit()]
    if not numbers:
        raise ValueError(f"the name {layer} has no number: give format.layer=0, for example")
    return numbers[0]


def _gathered(
    content: Content, windows: TokenWindows, examples: int
) -> tuple[TopExamples, ConceptSums, Nonzeros]:
    """Read all rows once: the strongest row of each window, densities, and the values of a sample of rows."""
    m = len(content.atoms)
    top, sums, step = TopExamples(m, examples), ConceptSums(m), max(1, content.n_rows // SAMPLED_ROWS)
    kept = []
    for A, row_ids in content.blocks():
        F = content.features(A)
        top.update(F, row_ids, torch.from_numpy(windows.window[row_ids.numpy()]))
        sums.update(F)
        kept += [part for _, part in nonzeros(F[(row_ids % step == 0).to(F.device)])]
    concept = torch.cat([part.concept for part in kept])
    order = concept.argsort(stable=True)
    value = torch.cat([part.value for part in kept])[order]
    return top, sums, Nonzeros(torch.empty(0), concept[order], value)


def _groups_of(asked: list[int], windows: TokenWindows) -> list[list[int]]:
    """Return windows in groups of about :data:`ENCODED_ROWS` rows."""
    groups: list[list[int]] = [[]]
    rows = 0
    for window in asked:
        rows += len(windows.rows_of(window))
        groups[-1].append(window)
        if rows >= ENCODED_ROWS:
            groups.append([])
            rows = 0
    return [group for group in groups if group]


def _activation(
    strings: list[str], values: Tensor, strongest: int, context: int, largest: float
) -> Activation:
    """Return the tokens around the strongest; the bin of a top activation reaches from -1 to the largest."""
    first = max(0, strongest - context)
    part = slice(first, strongest + context + 1)
    return {
        "bin_min": -1, "bin_max": _short(largest), "bin_contains": -1, "tokens": strings[part],
        "values": [_short(value) for value in values[part].tolist()],
        "qualifying_token_index": strongest - first,
    }  # fmt: skip


def _weights(atom: Tensor, vector: bool) -> dict[str, Any]:
    """Return the neurons of largest weight, the empty lists of what is not computed, and the atom."""
    largest = atom.topk(min(NEURONS, len(atom)))
    total = float(atom.abs().sum()) or 1.0
    empty = ("neurons_indices", "neurons_l1", "neurons_pearson", "features_indices", "features_l1",
             "features_pearson")  # fmt: skip
    return {
        "neuron_alignment_indices": largest.indices.tolist(),
        "neuron_alignment_values": [_short(value) for value in largest.values.tolist()],
        "neuron_alignment_l1": [_short(abs(value) / total) for value in largest.values.tolist()],
        **{f"correlated_{name}": [] for name in empty},
        "neg_str": [], "neg_values": [], "pos_str": [], "pos_values": [], "decoder_weights_dist": [],
        "logits_hist_data_bar_heights": [], "logits_hist_data_bar_values": [],
        "vector": [_short(value) for value in atom.tolist()] if vector else [],
    }  # fmt: skip


def _histogram(sample: Nonzeros, feature: int, density: float) -> dict[str, Any]:
    """Return the share of rows with a code, and the counts of codes by size."""
    ends = torch.searchsorted(sample.concept, torch.tensor([feature, feature + 1]))
    values = sample.value[int(ends[0]) : int(ends[1])]
    heights, middles = [], []
    if len(values):
        heights = torch.histc(values, BARS, 0, float(values.max())).tolist()
        width = float(values.max()) / BARS
        middles = [_short((bar + 0.5) * width) for bar in range(BARS)]
    return {
        "frac_nonzero": density, "freq_hist_data_bar_values": middles, "freq_hist_data_bar_heights": heights
    }  # fmt: skip


def _short(value: float) -> float:
    """Return a number of four digits.

    >>> _short(0.000123456)
    0.0001235
    """
    return float(f"{value:.4g}")
