"""A setting of a harvest is declared once in the dataclass and once in YAML, with one default."""

from __future__ import annotations

from dataclasses import MISSING, fields

import yaml
from commands import ROOT

from seminmf_lightning.harvest import HarvestRecipe

CHOSEN = {"model", "inputs", "layers"}
"""What every harvest has to name."""
OWN = {"batch_size", "seed"}
"""What a harvest to disk and one into training set themselves: a step has a batch size and a seed, too."""


def test_the_yaml_holds_every_setting_with_the_default_of_the_dataclass() -> None:
    shared = yaml.safe_load((ROOT / "configs" / "harvest" / "recipe.yaml").read_text())
    command = yaml.safe_load((ROOT / "configs" / "harvest" / "harvest.yaml").read_text())
    defaults = {field.name: field.default for field in fields(HarvestRecipe) if field.default is not MISSING}
    assert set(shared) == set(defaults) - CHOSEN - OWN
    assert shared | {name: command[name] for name in OWN} == {
        name: value for name, value in defaults.items() if name not in CHOSEN
    }
    training = yaml.safe_load((ROOT / "configs" / "data" / "harvest.yaml").read_text())
    assert not set(training) & set(shared)
