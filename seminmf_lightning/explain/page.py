"""From a dictionary and rows to the page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.core.sums import SecondMoment
from seminmf_lightning.explain import charts
from seminmf_lightning.explain.provenance import Harvested, Origins
from seminmf_lightning.explain.strongest import CodeSample, ConceptSums, TopExamples, nearest
from seminmf_lightning.metrics import ReconstructionMetrics, described, in_data_units
from seminmf_lightning.metrics.variation import variation

FEATURES = 8
"""Features of an atom that are shown."""
NEIGHBOURS = 6
WIDEST_SPECTRUM = 8192
"""Features beyond which no spectrum is computed."""
ENCODED_ROWS = 8192
"""Rows encoded at once when examples are looked at again."""
LIBRARIES = ("jinja2", "plotly")


def require_libraries() -> None:
    """Raise ModuleNotFoundError before the work, not after it."""
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"a report needs {' and '.join(missing)}: pip install 'seminmf-lightning[report]'"
        )


@dataclass
class Report:
    """What the page is made from, gathered in one stream over the rows."""

    D: Tensor
    top: TopExamples
    sums: ConceptSums
    sample: CodeSample
    metrics: ReconstructionMetrics
    moment: SecondMoment | None

    @classmethod
    def empty(cls, D: Tensor, rows: int, examples: int, l1_penalty: float = 0.0) -> Report:
        k, d = D.shape
        moment = SecondMoment.empty(d) if d <= WIDEST_SPECTRUM else None
        metrics = ReconstructionMetrics(k, d, l1_penalty)
        return cls(D.float(), TopExamples(k, examples), ConceptSums(k), CodeSample(k, rows), metrics, moment)

    def update(self, A: Tensor, Z: Tensor, rows: Tensor, groups: Tensor) -> None:
        """Add normalised rows A (m, d), their codes Z (m, k), numbers (m,) and examples (m,)."""
        self.top.update(Z, rows, groups)
        self.sums.update(Z)
        self.sample.update(Z, rows)
        self.metrics.to(A.device).update(A, Z @ self.D.to(Z), Z)
        if self.moment is not None:
            self.moment.to_(A.device)
            self.moment.add_rows_(A)


def make_report(
    report: Report, run: Path, figures: dict[str, Any], settings: dict[str, Any], origins: Origins,
    encode: Callable[[Sequence[range]], Iterable[Tensor]], max_concepts: int, scale: float = 1.0, held_out: float | None = None,
) -> str:  # fmt: skip
    """The page as HTML.

    Args:
        figures: of ``metrics.json``.
        settings: of the run, plain, to be listed.
        encode: codes (len, k) of each range of rows, for the rows beside the strongest ones.
        max_concepts: so many, those of most energy, are shown with examples; the others are listed.
        scale: of the normaliser.
        held_out: share of the run's rows that its figures are of; 0: they are of the training rows.
    """
    energy = report.sums.squares * report.D.double().square().sum(dim=1)
    energy = energy / energy.sum().clamp(min=1e-300)
    order = energy.argsort(descending=True, stable=True)
    shown = order[:max_concepts].tolist()
    positive, negative = report.top.poles()
    details = _details(report, shown)
    for concept, poles in _examples(report, shown, origins, encode).items():
        details[concept]["poles"] = poles
    rows = max(report.sums.rows, 1)
    strongest = report.D.argmax(dim=1)
    table = [
        [
            concept, _short(energy[concept]), _short(report.sums.positive[concept] / rows),
            _short(report.sums.negative[concept] / rows), _short(positive.values[concept, 0]),
            _short(negative.values[concept, 0]), int(strongest[concept]),
        ]
        for concept in order.tolist()
    ]  # fmt: skip
    notes = [origins.note] if origins.note else []
    if len(shown) < len(order):
        notes.append(
            f"Examples of the {len(shown)} concepts of most energy; the other {len(order) - len(shown)} are listed."
        )
    data = {
        "table": table, "details": details, "pictures": origins.pictures if isinstance(origins, Harvested) else [],
    }  # fmt: skip
    figures_html = [
        charts.as_html(figure, with_library=not number) for number, figure in enumerate(_charts(report, run))
    ]
    return _render(
        title=f"{report.D.shape[0]} concepts of {run.name}", run=run.name, settings=settings, notes=notes, held_out=held_out,
        figures=list(described(figures)), of_rows=list(described(in_data_units(report.metrics.compute(), scale))),
        rows=report.sums.rows, concepts=report.D.shape[0], features=report.D.shape[1], charts=figures_html, data=embed(data),
    )  # fmt: skip


def embed(data: Any) -> str:
    """JSON that cannot end the ``<script>`` element that holds it."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _details(report: Report, shown: list[int]) -> dict[int, dict[str, Any]]:
    features = report.D.topk(min(FEATURES, report.D.shape[1]), dim=1)
    similar = nearest(unit_atoms(report.D), NEIGHBOURS)
    together = nearest(report.sample.vectors(), NEIGHBOURS)

    def listed(pair: tuple[Tensor, Tensor], concept: int) -> list[list[float]]:
        values, numbers = pair
        return [
            [number, _short(value)]
            for value, number in zip(values[concept].tolist(), numbers[concept].tolist(), strict=True) if value > 0
        ]  # fmt: skip

    return {
        concept: {
            "features": listed((features.values, features.indices), concept), "similar": listed(similar, concept),
            "together": listed(together, concept), "poles": [[], []],
        }
        for concept in shown
    }  # fmt: skip


def _examples(
    report: Report, shown: list[int], origins: Origins, encode: Callable[[Sequence[range]], Iterable[Tensor]]
) -> dict[int, list[list[dict[str, Any]]]]:
    """For each concept and pole its examples, with the codes of the rows beside them."""
    poles = report.top.poles()
    wanted: dict[
        range, list[tuple[int, int, int]]
    ] = {}  # rows to encode: which concept, pole and row asks for them
    for concept in shown:
        for pole, top in enumerate(poles):
            for row in top.rows[concept].tolist():
                if row >= 0:
                    wanted.setdefault(origins.neighbours(row), []).append((concept, pole, row))
    codes: dict[tuple[int, int, int], tuple[range, np.ndarray]] = {}
    peaks: dict[tuple[int, int, int], float] = {}
    for rows, Z in zip(wanted, encode(list(wanted)), strict=True):
        for concept, pole, row in wanted[rows]:
            heat, peaks[concept, pole, row] = heat_of(Z[:, concept].cpu())
            codes[concept, pole, row] = (rows, heat)
    found: dict[int, list[list[dict[str, Any]]]] = {}
    for concept in shown:  # in order of energy: those of most get pictures first
        found[concept] = [[], []]
        for pole, top in enumerate(poles):
            for value, row in zip(top.values[concept].tolist(), top.rows[concept].tolist(), strict=True):
                if row >= 0:
                    example = origins.show(row, *codes[concept, pole, row])
                    peak = _short(peaks[concept, pole, row])
                    found[concept][pole].append(
                        example | {"row": row, "z": _short((1, -1)[pole] * value), "peak": peak}
                    )
    return found


def heat_of(codes: Tensor) -> tuple[np.ndarray, float]:
    """Codes (m,) of an example as whole numbers, 127 the largest ``|z|`` among them, and that.

    A stronger example elsewhere is not to make this one pale.
    """
    codes = codes.double()
    peak = float(codes.abs().max())
    return (127 * codes / (peak or 1.0)).round().to(torch.int16).numpy(), peak


def _charts(report: Report, run: Path) -> list[Any]:
    found = charts.curves(run, ("train/reconstruction_loss", "val/reconstruction_loss"))
    made = [charts.density_figure(report.sums.density.numpy())]
    if found:
        made.insert(0, charts.loss_figure(found))
    _, squares = variation(report.metrics.spread)
    if report.moment is not None and squares > 0:
        eigenvalues = torch.linalg.eigvalsh(report.moment.gram.cpu()).flip(0).clamp(min=0).numpy()
        left = float(report.metrics.squared_error) / squares
        made.append(charts.spectrum_figure(eigenvalues, report.D.shape[0], left))
    return made


def _render(**values: Any) -> str:
    import jinja2

    folder = files("seminmf_lightning.explain") / "page_files"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((folder / "page.html").read_text(encoding="utf-8"))
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return template.render(style=style, script=script, **values)


def _short(value: Any) -> float:
    return float(f"{float(value):.4g}")
