"""Data is chosen by name and plain settings, also by those that version 0.1.0 wrote."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import ROOT

from seminmf_lightning.core.discovery import available
from seminmf_lightning.data import ActivationDataModule, HarvestDataModule, NpyRows, Source
from seminmf_lightning.data.build import NAMES_OF_0_1_0, absolute, build_data, named, settings_from_file
from seminmf_lightning.dictionary_file import load_dictionary


def test_settings_go_to_the_source_or_to_the_data_module(npy: Path, signed: torch.Tensor) -> None:
    data = build_data({"name": "npy", "path": str(npy), "val_fraction": 0.25, "groups": None})
    assert isinstance(data, ActivationDataModule) and isinstance(data.source, NpyRows)
    assert data.val_fraction == 0.25
    assert torch.equal(data.source.read_range(0, 600), signed)


def test_a_data_module_without_a_source_is_chosen_by_its_name_too(npy: Path) -> None:
    inputs = {"name": "tensors", "path": str(npy)}
    model = {"name": "callable", "target": "torch.nn:Identity"}
    data = build_data({"name": "harvest", "model": model, "inputs": inputs, "layers": ["0"], "buffer_mb": 3})
    assert isinstance(data, HarvestDataModule) and data.buffer_mb == 3


def test_every_yaml_names_a_source_and_every_source_of_files_has_one() -> None:
    files = {path.stem: yaml.safe_load(path.read_text()) for path in ROOT.glob("configs/data/[!_]*.yaml")}
    assert all(content["name"] == name for name, content in files.items())
    ours = "seminmf_lightning.data.sources."
    own = {name for name, kind in available(Source).items() if kind.__module__.startswith(ours)}
    assert set(files) == own - {"tensor"} | {"harvest"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"name": "npz"}, "did you mean 'npy'"), ({}, "data.name must be one of demo"),
        ({"name": None}, "data.name must be"), ({"name": "npy"}, r"needs data.path"),
        ({"name": "npy", "path": "a", "pth": "b"}, "'pth'; did you mean 'path'"),
        ({"name": "npy", "path": "a", "val_fracton": 0}, "did you mean 'val_fraction'"),
        ({"name": "npy", "path": "a", "source": "b"}, "'source'"),
        ({"name": "harvest", "model": 1, "inputs": 1, "layers": 1, "norm_fliter": "drop"}, "'norm_filter'"),
        ({"_target_": "their.module.Rows"}, "entry point of the group seminmf_lightning.sources"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused(spec: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        build_data(spec)


@pytest.mark.parametrize("kind", NAMES_OF_0_1_0)
def test_targets_of_0_1_0_are_read_with_a_warning_that_names_the_new_key(kind: str) -> None:
    with pytest.warns(FutureWarning, match=f"is now data.name: {NAMES_OF_0_1_0[kind]}"):
        spec = named({"_target_": f"seminmf_lightning.data.{kind}", "path": "a"})
    assert spec == {"name": NAMES_OF_0_1_0[kind], "path": "a"}


def test_a_run_of_0_1_0_says_which_data_it_was_trained_on() -> None:
    file = ROOT / "tests/files/saved_by_0.1.0/sparse/dictionary.safetensors"
    with pytest.warns(FutureWarning, match=r"data.name: npy"):
        spec = settings_from_file(file, load_dictionary(file).config["data"])
    data = build_data(spec)
    assert isinstance(data.source, NpyRows) and data.val_fraction == 0.1


def test_local_paths_of_a_run_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = {"name": "npy", "path": ["a.npy", "/b.npy", "s3://c/d.npy"], "groups": None, "batch_size": 4}
    paths = [f"{tmp_path}/a.npy", "/b.npy", "s3://c/d.npy"]
    assert absolute(spec) == spec | {"path": paths}


def test_options_of_a_store_may_be_plain_values() -> None:
    options = {"endpoint_url": "http://x", "anon": None}
    spec = {"name": "object_store", "path": ["s3://a/b"], "storage": options}
    assert settings_from_file("run", spec) == spec


def test_settings_that_may_be_fractions_have_such_defaults_in_yaml() -> None:
    """The commands take the type of a setting from its YAML."""
    classes = available(Source) | {HarvestDataModule.name: HarvestDataModule}
    for name, kind in classes.items():
        path = ROOT / "configs" / "data" / f"{name}.yaml"
        defaults = yaml.safe_load(path.read_text()) if path.is_file() else {}
        for key, parameter in inspect.signature(kind).parameters.items():
            if parameter.annotation == "float" and defaults.get(key) is not None:
                assert isinstance(defaults[key], float), f"{path.name}: {key}"
