"""Draw a result as an SVG: one row per line, one dot per value, a bar of one standard error on each side."""

from __future__ import annotations

import math
from html import escape

from seminmf_lightning.suites.base import Estimate, Result

COLOURS = ("#1f5fbf", "#d1662a", "#3a8f4d", "#8a4fb0", "#8a8f98")
WIDTH, LABELS, RIGHT, TOP, ROW = 900, 300, 30, 74, 26  # pixels; ROW is the height of one line
TICKS = 6


def draw(result: Result) -> str:
    """Return an SVG of the values that ``result.plotted`` names; it needs no script and no font.

    >>> from seminmf_lightning.suites import Line
    >>> line = Line("run & more", {"auc": Estimate(0.75, 0.01)})
    >>> svg = draw(Result(title="AUC", lines=[line], columns={"auc": "AUC"}, plotted=("auc",)))
    >>> svg.count("<circle"), "run &amp; more" in svg
    (2, True)
    """
    values = [line.values[name] for line in result.lines for name in result.plotted if name in line.values]
    ends = [end for one in values for end in _ends(one)]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    step = 10 ** math.floor(math.log10(max(high - low, 1e-9) / TICKS))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= TICKS)
    low, high = math.floor(low / step) * step, max(math.ceil(high / step), math.floor(low / step) + 1) * step
    bottom = TOP + ROW * len(result.lines)

    def x(value: float) -> float:
        return LABELS + (value - low) / (high - low) * (WIDTH - LABELS - RIGHT)

    parts = [_text(12, 24, result.title, "font-size='15' font-weight='bold'")]
    for tick in range(round((high - low) / step) + 1):
        at, label = x(low + tick * step), f"{low + tick * step:.4g}"
        parts.append(f"<path d='M{at:.1f} {TOP - 8}V{bottom}' stroke='#d8dbe0'/>")
        parts.append(_text(at, bottom + 18, label, "text-anchor='middle' fill='#555'"))
    for number, name in enumerate(result.plotted):
        at, colour = LABELS + 130 * number, COLOURS[number % len(COLOURS)]
        parts.append(f"<circle cx='{at}' cy='48' r='5' fill='{colour}'/>")
        parts.append(_text(at + 10, 52, result.columns.get(name, name)))
    for row, line in enumerate(result.lines):
        y = TOP + ROW * row + ROW / 2
        parts.append(_text(12, y + 4, line.name))
        for number, name in enumerate(result.plotted):
            one, colour = line.values.get(name, Estimate(math.nan)), COLOURS[number % len(COLOURS)]
            if math.isfinite(one.value):
                left, right = map(x, _ends(one))
                parts.append(f"<path d='M{left:.1f} {y}H{right:.1f}' stroke='{colour}' stroke-width='2'/>")
                parts.append(f"<circle cx='{x(one.value):.1f}' cy='{y}' r='4' fill='{colour}'/>")
    size = f"viewBox='0 0 {WIDTH} {bottom + 30}' width='{WIDTH}' height='{bottom + 30}'"
    style = "font-family='sans-serif' font-size='13'"
    ground = "<rect width='100%' height='100%' fill='white'/>"
    return f"<svg xmlns='http://www.w3.org/2000/svg' {size} {style}>{ground}{''.join(parts)}</svg>\n"


def _ends(one: Estimate) -> tuple[float, ...]:
    if not math.isfinite(one.value):
        return ()
    return one.value - (one.error or 0.0), one.value + (one.error or 0.0)


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {style}>{escape(text)}</text>"
