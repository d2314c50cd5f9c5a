"""Draw the tables as plots."""

from __future__ import annotations

from pathlib import Path


def objective_against_time(curves: dict[str, dict[str, float]], path: Path) -> None:
    """``curves[method]["2 s"]`` is an objective."""
    _lines(
        {name: [(float(mark.split()[0]), y) for mark, y in curve.items()] for name, curve in curves.items()},
        path, "seconds of training", "held-out objective", logarithmic=True,
    )  # fmt: skip


def r2_against_nonzeros(curves: dict[str, dict[int, float]], path: Path) -> None:
    """``curves[method][nonzeros]`` is an R2."""
    _lines(
        {name: list(curve.items()) for name, curve in curves.items()},
        path,
        "nonzeros per row",
        "held-out R2",
        logarithmic=True,
    )


def _lines(
    series: dict[str, list[tuple[float, float]]], path: Path, x: str, y: str, *, logarithmic: bool
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for name, points in series.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
    if logarithmic:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
