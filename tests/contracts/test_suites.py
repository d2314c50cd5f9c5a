"""The contract of every evaluation suite, found by its file: its settings are those of its YAML."""

from __future__ import annotations

import json

import pytest
import yaml
from commands import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from seminmf_lightning.core.discovery import available, build, spec_of
from seminmf_lightning.suites import Suite

SUITES = {name: kind for name, kind in available(Suite).items() if kind.__module__.startswith("seminmf")}
FOLDER = ROOT / "configs" / "suite"


@pytest.mark.parametrize("name", SUITES)
def test_settings_are_those_of_the_yaml(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    assert text.startswith(f"# @package suite.{name}\n")
    settings = yaml.safe_load(text) or {}
    suite = build(Suite, {"name": name} | settings)
    assert json.loads(json.dumps(spec_of(suite))) == {"name": name} | settings
    assert suite == SUITES[name]() == build(Suite, spec_of(suite))
    with pytest.raises(TypeError, match=rf"unknown argument of suite '{name}' 'no_such_setting'"):
        build(Suite, {"name": name, "no_such_setting": 1})


def test_every_yaml_is_a_suite_and_all_can_be_chosen_together() -> None:
    assert {file.stem for file in FOLDER.glob("*.yaml")} == set(SUITES)
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("evaluate", overrides=["run=r", f"suite=[{','.join(SUITES)}]"])
    assert set(OmegaConf.to_container(cfg.suite)) == set(SUITES)
