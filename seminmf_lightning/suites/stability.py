"""Do the seeds of a sweep find the same concepts, and what is gained by keeping those that recur?

Legend:  A (n, d) rows   Z (n, k) codes   D (k, d) dictionary
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seminmf_lightning.core.checks import real_number, whole_number
from seminmf_lightning.core.consensus import consensus
from seminmf_lightning.core.stability import RECURS, Stability, stability_of
from seminmf_lightning.data.build import build_data, same_rows, settings_from_file
from seminmf_lightning.dictionary_file import FILE_NAME, SavedDictionary, load_dictionary, save_dictionary
from seminmf_lightning.explain.runs import Run, find_runs, read_run
from seminmf_lightning.explain.sweeps import groups_by_all_but_seed, varying
from seminmf_lightning.suites.base import Context, Estimate, Line, Result, Suite
from seminmf_lightning.suites.consensus import gain, halves, most_used, recipe_for, refitted

COLUMNS = {
    "stability": "stability", "cosine": "cosine", "null_cosine": "its null", "share": f"share >= {RECURS:g}",
    "stability_raw": "with mean atom", "atoms": "atoms", "r2": "r2", "l0": "l0",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SeedStability(Suite):
    """Compare the dictionaries of runs that differ in the seed alone, and merge them if asked to.

    ``run=`` is a sweep, or one of its runs with the others in ``runs``.
    """

    runs: Sequence[str] = ()
    """More sweeps or runs."""
    consensus: str | None = None
    """Folder for the ``dictionary.safetensors`` of the atoms that recur; None: none is made."""
    cosine: float = RECURS
    """Cosine from which on atoms of two seeds are one."""
    held_out: int = 8192
    """Held-out rows on which the consensus is measured."""
    overwrite: bool = False
    """Replace a dictionary in the folder."""

    def __post_init__(self) -> None:
        runs = (self.runs,) if isinstance(self.runs, str) else tuple(self.runs)
        object.__setattr__(self, "runs", runs)
        real_number("suite.stability.cosine", self.cosine, 0, exclusive=True, at_most=1)
        whole_number("suite.stability.held_out", self.held_out, 1)
        if self.consensus is not None and (Path(self.consensus) / FILE_NAME).exists() and not self.overwrite:
            raise FileExistsError(
                f"{Path(self.consensus) / FILE_NAME} exists; give another suite.stability.consensus, or "
                "suite.stability.overwrite=true"
            )

    def run(self, context: Context) -> Result:
        runs = [read_run(path) for path in find_runs([str(context.run), *self.runs])]
        every = groups_by_all_but_seed(runs)
        saved = {run.path: load_dictionary(run.path) for group in every for run in group}
        refuse_other_data(saved)
        groups = [one_per_seed(group) for group in every]
        groups = [group for group in groups if len(group) > 1]
        if not groups:
            raise ValueError(
                f"{context.run}: of {len(runs)} runs no two finished ones differ in the seed alone; "
                "train them with: seminmf train -m seed=0,1,2"
            )
        if self.consensus is not None and len(groups) > 1:
            raise ValueError(
                f"suite.stability.consensus merges seeds of one setting, and {context.run} has "
                f"{len(groups)}: give the runs of one of them"
            )
        keys = [key for key in varying(run for group in groups for run in group) if key != "seed"]
        lines = []
        for number, group in enumerate(groups):
            context.show("stability", number, len(groups))
            name = " ".join([*(f"{key}={group[0].settings.get(key)}" for key in keys), f"{len(group)} seeds"])
            lines.append(Line(name, stability_values([saved[run.path] for run in group])))
        notes = [
            "stability: mean cosine of matched atoms less that of atoms with shuffled entries, mean atom "
            "removed (also from cosine, null and share); with mean atom: the same of atoms as they are"
        ]
        details: dict[str, Any] = {}
        if self.consensus is not None:
            merged, details = self._merge([saved[run.path] for run in groups[0]], groups[0], context, notes)
            lines += merged
        shown = {key: text for key, text in COLUMNS.items() if any(key in line.values for line in lines)}
        return Result(
            title="stability over seeds", lines=lines, columns=shown, plotted=("stability", "share"),
            notes=notes, details=details,
        )  # fmt: skip

    def _merge(
        self, saved: list[SavedDictionary], group: list[Run], context: Context, notes: list[str]
    ) -> tuple[list[Line], dict[str, Any]]:
        """Write the consensus, and return what it gains."""
        assert self.consensus is not None
        first, free = saved[0], saved[0].constraint.sign_is_free
        data = build_data(context.data or settings_from_file(group[0].path, first.config.get("data")))
        data.prepare_data()
        data.setup("fit")
        rows, held_out = (
            first.normalizer.apply(part).float().to(context.device)
            for part in (data.sample(), data.held_out_sample(self.held_out))
        )
        dictionaries = [one.D for one in saved]
        context.show("consensus", 0, 1)
        found = consensus(dictionaries, sign_is_free=free, cosine=self.cosine)
        D = refitted(found.D, rows, recipe_for(first, len(found.D)))
        atoms = {
            "consensus": D,
            "consensus, not refitted": found.D,
            "first run, as many, the most used": most_used(first, rows, min(len(found.D), len(first.D))),
        }
        lines = [
            Line(name, {key: Estimate(value) for key, value in values.items()})
            for name, values in gain(saved, atoms, held_out)
        ]
        config = first.config | first.settings | {"nb_concepts": len(D)}
        path = Path(self.consensus) / FILE_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        save_dictionary(path, D, first.normalizer, config, ())
        notes.append(f"consensus: {len(D)} atoms, in {path}; r2 on held-out rows at equal nonzeros per row")
        try:
            of_halves = halves(dictionaries, free, self.cosine)
        except ValueError as error:
            notes.append(f"no stability of the consensus: {error}")
        else:
            if of_halves is not None:
                lines.append(Line("consensus of half the seeds, twice", values_of(of_halves)))
            else:
                notes.append("no stability of the consensus: that takes 4 seeds or more")
        return lines, {"seeds_per_atom": found.seeds.tolist(), "runs": [str(run.path) for run in group]}


def one_per_seed(group: list[Run]) -> list[Run]:
    """Return one run of each seed: a seed trained twice says nothing of stability."""
    return list({str(run.settings.get("seed")): run for run in group}.values())


def refuse_other_data(saved: Mapping[Path, SavedDictionary]) -> None:
    """Raise a ValueError that names two runs which were not trained on the same rows of the same layer."""
    if not saved:
        return
    (first, ours), *others = ((path, same_rows(one.config.get("data") or {})) for path, one in saved.items())
    for path, theirs in others:
        if key := next((key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)), None):
            raise ValueError(
                f"{first} was trained on data.{key}={ours.get(key)}, {path} on data.{key}={theirs.get(key)}: "
                "stability compares seeds on the same rows of one layer; give runs of one data set"
            )


def stability_values(saved: Sequence[SavedDictionary]) -> dict[str, Estimate]:
    """Return the values of a line."""
    free = saved[0].constraint.sign_is_free
    raw, centered = (
        stability_of([one.D for one in saved], sign_is_free=free, centered=c) for c in (False, True)
    )
    return values_of(centered) | {
        "stability_raw": Estimate(raw.above_null), "cosine_raw": Estimate(raw.cosine),
        "null_cosine_raw": Estimate(raw.null_cosine), "share_raw": Estimate(raw.share),
    }  # fmt: skip


def values_of(found: Stability) -> dict[str, Estimate]:
    """Return the values with the mean atom removed."""
    return {
        "stability": Estimate(found.above_null), "cosine": Estimate(found.cosine),
        "null_cosine": Estimate(found.null_cosine), "share": Estimate(found.share),
        "null_share": Estimate(found.null_share),
    }  # fmt: skip
