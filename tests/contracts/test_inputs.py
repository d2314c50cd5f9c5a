"""The contract of every kind of input, found by its name: numbered, named, described, and fingerprinted.

The example of a kind is ``tests/helpers/input_examples/<name>.py``: a function ``overrides(folder)`` that
returns what to type after ``inputs=<name>``, and where the input can change a function ``edit(folder)`` that
changes it and keeps its size.
"""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path

import pytest
from commands import ROOT
from harvests import CPU, all_rows, configured

from seminmf_lightning.core.discovery import available
from seminmf_lightning.harvest import HarvestRecipe
from seminmf_lightning.harvest.inputs import Inputs
from seminmf_lightning.harvest.recipe import describe_inputs, make_inputs

KINDS = [
    name
    for name, kind in available(Inputs).items()
    if kind.__module__.startswith(Inputs.__module__.rpartition(".")[0])
]


def example(name: str, folder: Path) -> HarvestRecipe:
    module = importlib.import_module(f"input_examples.{name}")
    return configured(f"inputs={name}", *module.overrides(folder))


@pytest.mark.parametrize("name", KINDS)
def test_examples_are_numbered_named_and_made_again_from_their_description(name: str, tmp_path: Path) -> None:
    assert (ROOT / "configs" / "harvest" / "inputs" / f"{name}.yaml").exists()
    recipe = example(name, tmp_path)
    inputs = recipe.inputs
    assert isinstance(inputs, Inputs) and inputs.kind in ("text", "image", "tensor") and len(inputs) > 3
    names = [inputs.identify(number) for number in range(len(inputs))]
    assert len(set(names)) == len(names)
    again = make_inputs(describe_inputs(inputs))
    assert len(again) == len(inputs) and describe_inputs(again) == describe_inputs(inputs)
    assert pickle.loads(pickle.dumps(inputs)).identify(1) == names[1]
    first = HarvestRecipe(recipe.model, inputs, recipe.layers, limit=3)
    (rows,) = all_rows(first.harvester(CPU)).values()
    assert len(rows.values) > 0 and rows.values.isfinite().all()


@pytest.mark.parametrize("name", KINDS)
def test_an_edit_that_keeps_the_size_changes_the_digest(name: str, tmp_path: Path) -> None:
    module = importlib.import_module(f"input_examples.{name}")
    if not hasattr(module, "edit"):
        pytest.skip("these inputs are part of an installed package")
    before = example(name, tmp_path).inputs
    assert isinstance(before, Inputs)
    size, digest = len(before), before.digest()
    module.edit(tmp_path)
    after = make_inputs(describe_inputs(before))
    assert (len(after), after.digest()) != (size, digest) and len(after) == size
