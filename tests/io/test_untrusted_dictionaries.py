"""Dictionaries from elsewhere: settings and numbers are checked, code is never named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from seminmf_lightning import SemiNMF, SemiNMFModule
from seminmf_lightning.cli.build import data_of_run


def with_config(trained: Path, path: Path, config: Any, **tensors: torch.Tensor) -> Path:
    save_file(load_file(trained / "dictionary.safetensors") | tensors, path, metadata={"config": config})
    return path


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "expected an object"),
        ('{"solver": {"name": "os"}}', "unknown solver"),
        (
            '{"solver": {"name": "hals", "_target_": "os.system"}}',
            "unknown argument of solver .hals. ._target_.",
        ),
        ('{"nb_concepts": 5}', "D has 4 atoms"),
        ('{"nb_concepts": 1e99}', "whole number"),
        ('{"tol": NaN}', "tol"),
        ('{"data": 3}', "config.data: expected"),
        ('{"encoder": 7}', "settings"),
        ('{"l1_penalty": "0"}', "l1_penalty"),
        ('{"seed": ' + "9" * 5000 + "}", "not JSON"),
    ],
)
def test_a_dictionary_with_odd_settings_is_refused(
    config: str, words: str, trained: Path, tmp_path: Path
) -> None:
    path = with_config(trained, tmp_path / "odd.safetensors", config)
    for load in (SemiNMF.load, SemiNMFModule.from_run):
        with pytest.raises(ValueError, match=rf"odd\.safetensors: .*{words}"):
            load(path)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"D": torch.full((4, 6), -1.0)}, "nonnegative"), ({"D": torch.full((4, 6), torch.nan)}, "finite"),
        ({"D": torch.zeros(0, 6)}, "belong together"), ({"D": torch.ones(4, 6, dtype=torch.int64)}, "I64"),
        ({"scale": torch.tensor(0.0)}, "scale"), ({"scale": torch.tensor(torch.inf)}, "scale"),
        ({"mean": torch.ones(6)}, "centres"),
        ({"mean": torch.full((6,), torch.nan)}, "mean"), ({"mean": torch.zeros(5)}, "belong together"),
    ],
)  # fmt: skip
def test_a_dictionary_with_odd_numbers_is_refused(
    tensors: Any, words: str, trained: Path, tmp_path: Path
) -> None:
    path = with_config(trained, tmp_path / "odd.safetensors", '{"nb_concepts": 4}', **tensors)
    with pytest.raises(ValueError, match=rf"odd\.safetensors: .*{words}"):
        SemiNMF.load(path)


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.system", "command": "touch MARKER"},
        {"_target_": "seminmf_lightning.data.files.os.system", "command": "touch MARKER"},
        {"_target_": "seminmf_lightning.data.datamodule.torch.utils.data.Dataset"},
        {"_target_": ["seminmf_lightning.data.NpyRows"]}, {"path": "x"}, None,
        {"name": "os.system", "command": "touch MARKER"}, {"name": "os"}, {"name": ["npy"]}, {"name": 3},
        {"name": "harvest", "model": {"name": "callable", "target": "os:system"}},
        {"name": "npy", "path": {"_target_": "os.system", "_args_": ["touch MARKER"]}},
        {"name": "npy", "path": [{"x": {"_target_": "os.system", "command": "touch MARKER"}}]},
        {"name": "npy", "path": "x.npy", "_partial_": True}, {"name": "npy", "path": "${oc.env:HOME}"},
        {"name": "npy", "path": ["a.npy", "${oc.env:HOME}"]}, {"name": "npy", "path": [["a.npy"]]},
        {"name": "npy", "path": "x.npy", "source": "y"}, {"name": "npy", "path": "x.npy", "trainer": "y"},
        {"name": "object_store", "path": "s3://x", "storage": {"a": {"_target_": "os.system"}}},
        {"name": "object_store", "path": "s3://x", "storage": {"a": "${oc.env:HOME}"}},
    ],
)  # fmt: skip
def test_a_dictionary_from_elsewhere_cannot_name_code(node: Any, trained: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    config = json.dumps({"nb_concepts": 4, "data": node}).replace("MARKER", str(marker))
    with pytest.raises(ValueError, match=r"give data=\.\.\. data\.path="):
        data_of_run(with_config(trained, tmp_path / "dictionary.safetensors", config))
    assert not marker.exists()


def test_the_data_of_a_run_of_ours_is_found(trained: Path, tmp_path: Path) -> None:
    node = {"name": "npy", "path": "x.npy", "val_fraction": 0.1, "groups": None}
    path = with_config(
        trained, tmp_path / "dictionary.safetensors", json.dumps({"nb_concepts": 4, "data": node})
    )
    assert data_of_run(path) == node


def test_a_report_runs_nothing_that_a_dictionary_names(script: Any, trained: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    node = {"name": "npy", "path": {"_target_": "os.system", "command": f"touch {marker}"}}
    with_config(trained, tmp_path / "dictionary.safetensors", json.dumps({"nb_concepts": 4, "data": node}))
    done = script("report", f"run={tmp_path}", check=False)
    assert done.returncode and "which is not read" in done.stderr and not marker.exists()
