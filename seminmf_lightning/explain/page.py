"""Build the report: one HTML file, offline, with every concept and its strongest examples of both signs."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.commands import command
from seminmf_lightning.core.constraints import Constraint
from seminmf_lightning.core.discovery import available, name_of
from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.data import ActivationDataModule, Source
from seminmf_lightning.dictionary_file import load_dictionary
from seminmf_lightning.explain.charts import Chart
from seminmf_lightning.explain.gather import EncodeRanges, Model, Summary, encode_ranges, gather
from seminmf_lightning.explain.provenance import Harvested, Origins, origins_of
from seminmf_lightning.explain.runs import METRICS_FILE, read_metrics
from seminmf_lightning.explain.strongest import nearest
from seminmf_lightning.io.schema import is_finite
from seminmf_lightning.metrics import described, finite_or_none, in_data_units

FEATURES = 8
"""Features shown per atom."""
NEIGHBOURS = 6
"""Similar and co-active concepts shown per concept."""


def require_libraries() -> None:
    """Raise ModuleNotFoundError, before any work is done, if jinja2 is missing."""
    if find_spec("jinja2") is None:
        raise ModuleNotFoundError("a report needs jinja2: pip install 'seminmf-lightning[report]'")


@dataclass(frozen=True)
class ReportOptions:
    """Settings of the page."""

    examples: int = 8
    """Examples per concept and sign."""
    max_concepts: int = 1000
    """Concepts shown with examples, by decreasing energy; the table lists all concepts."""
    max_mb: float = 8.0
    """Megabytes of embedded images."""
    batch_rows: int = 4096
    """Rows encoded at once."""


def make_report(model: Model, data: ActivationDataModule, run: Path, options: ReportOptions) -> str:
    """Return the page about the rows of ``data``, encoded by ``model``, the dictionary of ``run``.

    Args:
        run: a run directory, or its dictionary file; its metrics and curves are shown where it has them.

    Raises:
        ValueError: rows of another width, or ``metrics.json`` is no JSON object.
    """
    if data.features != model.dictionary.shape[1]:
        raise ValueError(
            f"{data.source.shards[0].name}: rows of {data.features} features, "
            f"but {run} has {model.dictionary.shape[1]}"
        )
    trained_on = load_dictionary(run).config.get("data") or {}
    run = run if run.is_dir() else run.parent
    origins = origins_of(data.source, int(options.max_mb * 2**20))
    summary = gather(model, data, origins, options.examples, options.batch_rows)
    shown = summary.energy.argsort(descending=True, stable=True).tolist()[: options.max_concepts]
    signs = model.recipe.constraint
    details = _details(summary, shown, signs)
    for concept, examples in _examples(summary, shown, origins, partial(encode_ranges, model, data)).items():
        details[concept]["signs"] = examples
    metrics = read_metrics(run) if (run / METRICS_FILE).is_file() else {}
    of_rows = in_data_units(summary.metrics.compute(), float(model.scale))
    of_rows = {name: finite_or_none(value) for name, value in of_rows.items()}
    k, d = summary.D.shape
    return _render(
        title=f"{k} concepts of {run.name}", run=run.name, rows=summary.sums.rows, concepts=k, features=d,
        signs=str(signs),
        settings=model.plain_recipe() | {"data": type(data.source).__name__},
        notes=_notes(model, trained_on, data, origins, len(shown)),
        held_out=trained_on.get("val_fraction"), of_rows=list(described(of_rows)),
        of_run=list(described({name: v for name, v in metrics.items() if v is None or is_finite(v)})),
        data=embed({
            "table": _table(summary), "details": details, "charts": _charts(summary, run),
            "one_sign": signs.nonnegative_codes,
            "images": origins.images if isinstance(origins, Harvested) else [],
        }),
    )  # fmt: skip


def embed(data: Any) -> str:
    """Return JSON that cannot end the ``<script>`` element that holds it.

    >>> embed({"a": "</script>"})
    '{"a":"\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _notes(
    model: Model, trained_on: Mapping[str, Any], data: ActivationDataModule, origins: Origins, shown: int
) -> list[dict[str, str]]:
    """Return the notes above the metrics: a text, and a command to type or an empty string."""
    notes, concepts = [], len(model.dictionary)
    signs = model.recipe.constraint
    if not model.recipe.penalised and not model.recipe.encoder.sparse:
        kind = "nonnegative atoms" if signs.nonnegative_atoms else "atoms"
        text = (
            "The rows may leave the single atoms of this dictionary undetermined: it was learned without a "
            f"penalty (l1_penalty=0), and other {kind} whose nonnegative combinations reach the same "
            "rows fit them equally well."
            if signs.nonnegative_codes
            else "Nothing determines the single atoms of this dictionary, only their span: it was learned "
            f"without a penalty (l1_penalty=0), and other {kind} of the same span fit the rows equally well."
        )
        kept = "" if signs.is_semi_nmf else f" nonnegative={signs.name}"
        notes.append({
            "text": f"{text} For concepts that can be read one by one, train for sparse codes:",
            "command": f"{command('train')} {_typed_data(trained_on, data.source)} nb_concepts={concepts}"
            f"{kept} l1_penalty=0.1",
        })  # fmt: skip
    if origins.note:
        notes.append({"text": origins.note, "command": ""})
    if shown < concepts:
        text = (
            f"Examples of the {shown} concepts of most energy; the other {concepts - shown} are only listed."
        )
        notes.append({"text": text, "command": ""})
    return notes


def _typed_data(trained_on: Mapping[str, Any], source: Source) -> str:
    """Return the data of the training, otherwise of this report, as typed after a command.

    >>> from seminmf_lightning.data import NpyRows
    >>> print(_typed_data({}, NpyRows("my rows.npy")))
    data=npy 'data.path="my rows.npy"'
    """
    settings = trained_on if "name" in trained_on else {"name": name_of(source)} | vars(source)
    words, path = [f"data={settings['name']}"], settings.get("path")
    if isinstance(path, str):
        words.append(
            f"data.path={path}" if re.fullmatch(r"[A-Za-z0-9_./-]+", path) else f'data.path="{path}"'
        )
    return shlex.join(words)


def _charts(summary: Summary, run: Path) -> list[dict[str, Any]]:
    plots = (chart().plot(summary, run) for chart in available(Chart).values())
    return [asdict(plot) for plot in plots if plot is not None]


def _table(summary: Summary) -> list[list[float]]:
    """Return one line per concept, most energy first: id, energy, densities, extreme codes, top feature."""
    rows, energy = max(summary.sums.rows, 1), summary.energy
    positive, negative = summary.top.signs()
    top_feature = summary.D.abs().argmax(dim=1)
    return [
        [
            concept, _short(energy[concept]), _short(summary.sums.positive[concept] / rows),
            _short(summary.sums.negative[concept] / rows), _short(positive.values[concept, 0]),
            _short(negative.values[concept, 0]), int(top_feature[concept]),
        ]
        for concept in energy.argsort(descending=True, stable=True).tolist()
    ]  # fmt: skip


def _details(summary: Summary, shown: list[int], signs: Constraint) -> dict[int, dict[str, Any]]:
    """Return top features, similar atoms and co-active concepts of each concept, as pairs of id and value."""
    largest = summary.D.abs().topk(min(FEATURES, summary.D.shape[1]), dim=1).indices
    weights = summary.D.gather(1, largest)
    similar = nearest(unit_atoms(summary.D), NEIGHBOURS, sign_is_free=signs.sign_is_free)
    together = nearest(summary.sample.vectors(), NEIGHBOURS)

    def pairs(values: Tensor, ids: Tensor) -> list[list[float]]:
        return [
            [i, _short(value)] for value, i in zip(values.tolist(), ids.tolist(), strict=True) if value != 0
        ]

    return {
        concept: {
            "features": pairs(weights[concept], largest[concept]),
            "similar": pairs(similar[0][concept].clamp(min=0), similar[1][concept]),
            "together": pairs(together[0][concept].clamp(min=0), together[1][concept]),
            "signs": [[], []],
        }
        for concept in shown
    }


def _examples(
    summary: Summary, shown: list[int], origins: Origins, encode: EncodeRanges
) -> dict[int, list[list[dict[str, Any]]]]:
    """Return examples of each concept and sign, with the codes of the rows around each."""
    signs = summary.top.signs()
    # Ranges of rows to encode, and the (concept, sign, row) of the examples that need each.
    requests: dict[range, list[tuple[int, int, int]]] = {}
    for concept in shown:
        for sign, row in ((s, row) for s, top in enumerate(signs) for row in top.row_ids[concept].tolist()):
            if row >= 0:
                requests.setdefault(origins.neighbours(row), []).append((concept, sign, row))
    codes: dict[tuple[int, int, int], tuple[range, np.ndarray, float]] = {}
    for rows, Z in zip(requests, encode(list(requests)), strict=True):
        for concept, sign, row in requests[rows]:
            codes[concept, sign, row] = (rows, *scaled_codes(Z[:, concept].cpu()))

    def of_sign(concept: int, sign: int) -> Iterator[dict[str, Any]]:
        top = signs[sign]
        for value, row in zip(top.values[concept].tolist(), top.row_ids[concept].tolist(), strict=True):
            if row >= 0:
                rows, scaled, peak = codes[concept, sign, row]
                z = (1, -1)[sign] * value
                yield origins.show(row, rows, scaled) | {"row": row, "z": _short(z), "peak": _short(peak)}

    # In order of energy, so that the strongest concepts get images before max_mb is reached.
    return {concept: [list(of_sign(concept, 0)), list(of_sign(concept, 1))] for concept in shown}


def scaled_codes(codes: Tensor) -> tuple[np.ndarray, float]:
    """Return codes (m,) of one example as integers, scaled so that the largest ``|z|`` is 127, and that
    ``|z|``.

    >>> scaled_codes(torch.tensor([0.0, -2.0, 1.0]))
    (array([   0, -127,   64], dtype=int16), 2.0)
    """
    codes = codes.double()
    peak = float(codes.abs().max())
    return (127 * codes / (peak or 1.0)).round().to(torch.int16).numpy(), peak


def _render(**values: Any) -> str:
    import jinja2

    folder = files("seminmf_lightning.explain") / "page_files"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((folder / "page.html").read_text(encoding="utf-8"))
    style, *scripts = (
        (folder / name).read_text(encoding="utf-8") for name in ("page.css", "charts.js", "page.js")
    )
    return template.render(style=style, scripts=scripts, **values)


def _short(value: Any) -> float:
    return float(f"{float(value):.4g}")
