"""Algorithms are found by the name of their file, and by the entry points of other packages."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

import pytest
import torch

from seminmf_lightning.core import discovery
from seminmf_lightning.core.discovery import available, build, default_for, name_of, spec_of
from seminmf_lightning.encoders import Encoder
from seminmf_lightning.inits import Init
from seminmf_lightning.learners import Recipe
from seminmf_lightning.solvers import Solver

GROUP = "seminmf_lightning.inits"


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Entry points by name; ``their_inits`` is a module of another package with an init in it."""
    module = types.ModuleType("their_inits")
    monkeypatch.setitem(sys.modules, "their_inits", module)
    exec(
        "from dataclasses import dataclass\n"
        "import torch\n"
        "from seminmf_lightning.inits import Init\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Ones(Init):\n"
        "    weight: float = 1.0\n"
        "    def start(self, A, concepts, generator, *, positive=False):\n"
        "        return self.weight * torch.ones(concepts, A.shape[1], dtype=torch.float64)\n",
        module.__dict__,
    )
    chosen: dict[str, str] = {}

    def entry_points(*, group: str) -> list[metadata.EntryPoint]:
        return [metadata.EntryPoint(name, value, group) for name, value in chosen.items() if group == GROUP]

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    monkeypatch.setattr(discovery, "_loaded_groups", set())
    monkeypatch.setattr(discovery, "_plugin_names", {})
    yield chosen
    del module.Ones


def test_a_plugin_is_found_under_the_name_of_its_entry_point(
    plugins: dict[str, str], signed: torch.Tensor
) -> None:
    plugins["flat"] = "their_inits:Ones"
    assert {"flat", "data", "random", "svd"} <= set(available(Init))
    assert "their_inits" not in available(Init)
    init = build(Init, {"name": "flat", "weight": 2.0})
    assert (name_of(init), spec_of(init)) == ("flat", {"name": "flat", "weight": 2.0})
    recipe = Recipe(nb_concepts=3, init="flat")
    assert Recipe(**recipe.plain()) == recipe


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("their_inits:Missing", "AttributeError"),
        ("no_such_package.file:Thing", "ModuleNotFoundError"),
        ("torch:nn", "not a subclass of seminmf_lightning.inits.base.Init"),
    ],
)
def test_a_broken_plugin_is_named_and_left_out(plugins: dict[str, str], value: str, words: str) -> None:
    plugins["broken"] = value
    with pytest.warns(UserWarning, match=rf"{GROUP}: left out the plugin broken = {value} .*{words}"):
        names = available(Init)
    assert "broken" not in names and "data" in names


def test_a_plugin_does_not_replace_an_algorithm_of_the_package(plugins: dict[str, str]) -> None:
    plugins["svd"] = "their_inits:Ones"
    assert available(Init)["svd"].__module__ == "seminmf_lightning.inits.svd"


@pytest.mark.parametrize(
    ("base", "purposes"), [(Solver, ("bounded", "free")), (Encoder, ("penalised", "unpenalised"))]
)
def test_each_problem_has_one_default(base: type, purposes: tuple[str, ...]) -> None:
    claimed = [kind.default_for for kind in available(base).values() if kind.default_for is not None]
    assert sorted(claimed) == sorted(purposes)
    for purpose in purposes:
        assert available(base)[default_for(base, purpose)].default_for == purpose


def test_an_instance_passes_through_and_other_things_are_refused() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Mine(Solver):
        def step(self, D, S, P, *, constraint, bounded):
            return D

    mine = Mine()
    assert build(Solver, mine) is mine
    for wrong in (3, {"sweeps": 2}, {"name": 3}, ["hals"]):
        with pytest.raises(TypeError, match="solver must be a name, a mapping with a 'name', or a Solver"):
            build(Solver, wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown solver 'hls'; did you mean 'hals'"):
        build(Solver, {"name": "hls"})
