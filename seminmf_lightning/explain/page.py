"""Build the report: one HTML file, offline, with every concept and its strongest examples of both signs."""

from __future__ import annotations

import json
import re
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from seminmf_lightning.core.commands import command
from seminmf_lightning.core.discovery import available, name_of
from seminmf_lightning.data import ActivationDataModule, Source
from seminmf_lightning.dictionary_file import load_dictionary
from seminmf_lightning.explain.automatic_labels import automatic_labels
from seminmf_lightning.explain.charts import Chart
from seminmf_lightning.explain.details import (
    SIGNS,
    add_examples,
    concept_details,
    concept_table,
    stronger_sign,
)
from seminmf_lightning.explain.gather import Model, Summary, encode_ranges, gather
from seminmf_lightning.explain.label_score import score_labels
from seminmf_lightning.explain.language_model import describe
from seminmf_lightning.explain.provenance import Harvested, Origins, origins_of
from seminmf_lightning.explain.runs import METRICS_FILE, read_metrics
from seminmf_lightning.io.labels import digest_of, refuse_unknown
from seminmf_lightning.io.schema import conform, is_finite
from seminmf_lightning.io.untrusted import parse_json
from seminmf_lightning.metrics import described, finite_or_none, in_data_units

LENS_FILE = "logit_lens.json"
"""Written beside a run whose network has a head; a file written by hand may leave the digest out:
``{"dictionary": "0f3a...", "concepts": {"17": {"promotes": ["cat"], "suppresses": []}}}``."""
SCRIPTS = (
    "charts.js", "shared.js", "labels.js", "order.js", "list.js", "examples.js", "concept.js", "page.js",
)  # fmt: skip
"""In this order: each uses names of those before it."""


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
    base_url: str | None = None
    """OpenAI-compatible server that labels concepts in words; None: no language model."""
    language_model: str | None = None
    """Name of its model."""


class Report(NamedTuple):
    """The page, and the labels that nobody typed."""

    page: str
    automatic: dict[int, str]


def make_report(
    model: Model, data: ActivationDataModule, run: Path, options: ReportOptions,
    labels: Mapping[int, str] | None = None,
) -> Report:  # fmt: skip
    """Return the page about the rows of ``data``, encoded by ``model``, the dictionary of ``run``.

    Args:
        run: a run directory, or its dictionary file; its metrics and curves are shown where it has them.
        labels: typed labels by concept.

    Raises:
        ValueError: rows of another width, or ``metrics.json`` or ``logit_lens.json`` is malformed.
    """
    if data.features != model.dictionary.shape[1]:
        raise ValueError(
            f"{data.source.shards[0].name}: rows of {data.features} features, "
            f"but {run} has {model.dictionary.shape[1]}"
        )
    trained_on = load_dictionary(run).config.get("data") or {}
    run = run if run.is_dir() else run.parent
    lens = read_lens(run / LENS_FILE, model.dictionary) if (run / LENS_FILE).is_file() else {}
    origins = origins_of(data.source, int(options.max_mb * 2**20))
    summary = gather(model, data, origins, options.examples, options.batch_rows)
    shown = summary.energy.argsort(descending=True, stable=True).tolist()[: options.max_concepts]
    signs = model.recipe.constraint
    details = concept_details(summary, shown, signs)
    add_examples(details, summary, origins, partial(encode_ranges, model, data))
    signed = {concept: stronger_sign(summary, concept) for concept in details}
    strongest = {concept: detail["signs"][signed[concept]] for concept, detail in details.items()}
    automatic = automatic_labels(strongest)
    made_from = {concept: (SIGNS[signed[concept]], examples) for concept, examples in strongest.items()}
    for concept, score in score_labels(summary.sample, origins, made_from).items():
        details[concept]["score"] = [float(f"{value:.4g}") for value in score]
    if options.base_url is not None:
        worded = describe(strongest, options.base_url, options.language_model)
        if not worded:
            warnings.warn(
                "no concept has an example in a text: base_url was not asked for labels", stacklevel=2
            )
        automatic |= worded
    metrics = read_metrics(run) if (run / METRICS_FILE).is_file() else {}
    of_rows = in_data_units(summary.metrics.compute(), float(model.scale))
    of_rows = {name: finite_or_none(value) for name, value in of_rows.items()}
    k, d = summary.D.shape
    page = _render(
        title=f"{k} concepts of {run.name}", run=run.name, rows=summary.sums.rows, concepts=k, features=d,
        signs=str(signs),
        settings={name: setting_text(value) for name, value in model.plain_recipe().items()}
        | {"data": type(data.source).__name__},
        notes=_notes(model, trained_on, data, origins, len(shown)),
        held_out=trained_on.get("val_fraction"), trained=bool(metrics), metrics=beside(of_rows, metrics),
        data=embed({
            "table": concept_table(summary), "details": details, "charts": _charts(summary, run),
            "one_sign": signs.nonnegative_codes, "sampled": summary.sample.step,
            "images": origins.images if isinstance(origins, Harvested) else [],
            "labels": labels or {}, "automatic": automatic, "lens": lens,
            "dictionary": digest_of(model.dictionary),
        }),
    )  # fmt: skip
    return Report(page, automatic)


def beside(of_rows: Mapping[str, Any], of_run: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return each metric with its value on the rows of the report, its value in the run, and its meaning.

    A value that does not exist is an empty string; metrics that have neither are left out.

    >>> beside({"r2": 0.712345}, {"r2": 0.5, "seconds": 3.25, "optimality_gap": None})
    [('r2', '0.7123', '0.5', 'share of variance explained'), ('seconds', '', '3.25', 'wall time')]
    """
    columns = [
        {name: shown for name, *shown in described({name: _rounded(value) for name, value in column.items()})}
        for column in (of_rows, {name: v for name, v in of_run.items() if v is not None and is_finite(v)})
    ]
    nothing = ["", ""]
    lines = []
    for name in dict.fromkeys([*columns[0], *columns[1]]):
        here, there = (column.get(name, nothing) for column in columns)
        lines.append((name, here[0], there[0], here[1] or there[1]))
    return lines


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def setting_text(value: Any) -> str:
    """Return a setting as the page shows it.

    >>> setting_text({"name": "pgd", "update_every": None, "max_iter": 500}), setting_text(None)
    ('pgd, max_iter=500', '-')
    """
    if not isinstance(value, Mapping):
        return "-" if value is None else str(value)
    options = [f"{key}={one}" for key, one in value.items() if key != "name" and one is not None]
    return ", ".join([str(value["name"])] * ("name" in value) + options)


def read_lens(path: Path, D: Tensor) -> dict[str, Any]:
    """Return the tokens or classes that each atom of D (k, d) promotes and suppresses, by its number.

    The lens of other atoms is left out, with a warning.
    """
    content = parse_json(path, path.read_bytes(), "a logit lens: it is not JSON")
    form = {"dictionary?": str, "concepts": {str: {"promotes": [str], "suppresses": [str]}}}
    conform(path, content, form)
    seen, digest = content.get("dictionary"), digest_of(D)
    if seen not in (None, digest):
        warnings.warn(
            f"{path} is not shown: it is of the dictionary {seen}, but this one is {digest}; write it again "
            f'with {command("concepts")} run={path.parent} text="..." lens=true',
            stacklevel=2,
        )
        return {}
    lens: dict[str, Any] = content["concepts"]
    refuse_unknown(path, lens, len(D))
    return lens


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


def _render(**values: Any) -> str:
    import jinja2

    folder = files("seminmf_lightning.explain") / "page_files"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((folder / "page.html").read_text(encoding="utf-8"))
    style, *scripts = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", *SCRIPTS))
    return template.render(style=style, scripts=scripts, **values)
