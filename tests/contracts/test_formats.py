"""The contract of every format that ``export`` writes: found by its file, with its settings in a YAML."""

from __future__ import annotations

from dataclasses import fields

import pytest
import yaml
from commands import ROOT

from seminmf_lightning.core.discovery import available, build
from seminmf_lightning.integrations.formats import Format

FORMATS = available(Format)


def test_every_format_has_a_yaml() -> None:
    assert {path.stem for path in (ROOT / "configs/format").glob("*.yaml")} == set(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_the_yaml_of_a_format_has_its_settings(name: str) -> None:
    content = yaml.safe_load((ROOT / f"configs/format/{name}.yaml").read_text())
    assert content.pop("name") == name
    assert content == {field.name: field.default for field in fields(FORMATS[name])}
    build(Format, {"name": name, **content})


@pytest.mark.parametrize("name", FORMATS)
def test_unknown_settings_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"unknown argument of format '{name}'"):
        build(Format, {"name": name, "nothing": 1})
