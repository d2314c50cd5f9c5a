"""The settings: defaults, contradictions, and the YAML that repeats them."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import yaml
from commands import ROOT

from seminmf_lightning.core.discovery import name_of
from seminmf_lightning.core.sums import AFFORDABLE_FEATURES
from seminmf_lightning.learners import Recipe


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"target_l0": 9}, "target_l0=9 is more than nb_concepts=8"),
        ({"target_l0": 0}, "target_l0"),
        ({"target_l0": 4, "l1_penalty": 0.1}, "give one"),
        ({"target_l0": 4, "solver": "mu"}, "solver=hals or solver=ksvd or solver=pgd"),
        (
            {"l1_penalty": 0.1, "encoder": {"name": "omp"}},
            "encoder=omp takes no penalty: use encoder=lasso or encoder=auto",
        ),
        ({"encoder": {"name": "omp", "nonzeros": 0}}, "encoder.nonzeros"),
        ({"encoder": {"name": "omp", "nonzeros": 4}, "statistics": "second_moment"}, "second_moment"),
    ],
)
def test_contradictions_are_refused(recipe: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Recipe(nb_concepts=8, **recipe)


@pytest.mark.parametrize(
    ("settings", "solver", "encoder", "bounded"),
    [
        ({}, "mu", "least_squares", False),
        ({"l1_penalty": 0.1}, "hals", "lasso", True),
        ({"target_l0": 4}, "hals", "lasso", True),
        ({"encoder": {"name": "omp", "nonzeros": 2}}, "hals", "omp", True),
        ({"encoder": {"name": "threshold", "nonzeros": 2}}, "hals", "threshold", True),
        ({"encoder": {"name": "lasso", "l1_penalty": 0.2}}, "hals", "lasso", True),
        ({"solver": "pgd"}, "pgd", "least_squares", False),
        ({"solver": "mu", "encoder": {"name": "omp", "nonzeros": 2}}, "mu", "omp", False),
    ],
)
def test_solver_and_encoder_follow_from_the_problem(
    settings: dict[str, Any], solver: str, encoder: str, bounded: bool
) -> None:
    recipe = Recipe(nb_concepts=8, **settings)
    assert (name_of(recipe.solver), name_of(recipe.encoder), recipe.bounded) == (solver, encoder, bounded)
    assert Recipe(**recipe.plain()) == recipe


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"l1_penality": 0.1}, "unknown setting 'l1_penality'; did you mean 'l1_penalty'"),
        ({"nb_concept": 3}, "did you mean 'nb_concepts'"),
        ({"zzzz": 3}, "unknown setting 'zzzz'; accepted: nb_concepts, l1_penalty"),
        (
            {"solver": {"name": "hals", "sweep": 2}},
            "unknown argument of solver 'hals' 'sweep'; did you mean 'sweeps'",
        ),
        ({"solver": 3}, "solver must be a name"),
        ({"encoder": 3}, "encoder must be a name"),
    ],
)
def test_unknown_settings_are_refused_with_the_nearest_name(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        Recipe.from_settings(settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"solver": "hal"}, "unknown solver 'hal'; did you mean 'hals'"),
        ({"encoder": "laso"}, "unknown encoder 'laso'; did you mean 'lasso'"),
        ({"normalize": "centre"}, "did you mean 'center'"),
        ({"statistics": "code"}, "did you mean 'codes'"),
    ],
)
def test_unknown_words_are_refused_with_the_nearest_one(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Recipe.from_settings(settings)


def test_the_yaml_repeats_the_recipe() -> None:
    """Every setting is a root key or a group of configs/train.yaml, with the default that Python has.

    The command's solver is the one for both problems, so that ``l1_penalty=0.1`` alone works there, too.
    """
    config = yaml.safe_load((ROOT / "configs" / "train.yaml").read_text())
    groups = {
        key: value for entry in config["defaults"] if isinstance(entry, dict) for key, value in entry.items()
    }
    for field in fields(Recipe):
        if field.name in ("solver", "init", "encoder"):
            assert groups[field.name] == ("hals" if field.name == "solver" else field.default)
        else:
            assert config[field.name] == field.default, field.name
            assert type(config[field.name]) is type(field.default), field.name


def test_numpy_numbers_are_taken_as_plain_ones() -> None:
    recipe = Recipe(
        nb_concepts=np.int64(8), l1_penalty=np.float32(0.5), solver={"name": "hals", "sweeps": np.int32(2)}
    )
    assert json.dumps(recipe.plain())
    assert recipe == Recipe(nb_concepts=8, l1_penalty=0.5, solver={"name": "hals", "sweeps": 2})


@pytest.mark.parametrize(
    ("settings", "features", "statistics"),
    [
        ({}, 24, "second_moment"),
        ({}, AFFORDABLE_FEATURES, "second_moment"),
        ({}, AFFORDABLE_FEATURES + 1, "codes"),
        ({"statistics": "second_moment"}, AFFORDABLE_FEATURES + 1, "second_moment"),
        ({"statistics": "codes"}, 24, "codes"),
        ({"l1_penalty": 0.1}, 24, "codes"),
        ({"target_l0": 2}, 24, "codes"),
        ({"encoder": {"name": "omp", "nonzeros": 2}}, 24, "codes"),
    ],
)
def test_statistics_follow_from_the_problem(settings: dict[str, Any], features: int, statistics: str) -> None:
    assert Recipe(nb_concepts=4, **settings).statistics_for(features) == statistics
