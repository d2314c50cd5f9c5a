"""The package's public names, and what importing them costs."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import seminmf_lightning

HEAVY = {"lightning", "hydra", "omegaconf", "transformers", "torchmetrics", "rich", "fsspec.implementations"}


def loaded_by(code: str) -> set[str]:
    """Names of the modules in a new process after ``code``; the process must leave its environment alone."""
    probe = f"import os, sys; old = dict(os.environ)\n{code}\nassert os.environ == old\nprint(*sys.modules)"
    return set(
        subprocess.run(
            [sys.executable, "-c", probe], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_importing_the_package_loads_nothing() -> None:
    assert not {"torch", "numpy", *HEAVY} & loaded_by(
        "import seminmf_lightning; seminmf_lightning.__version__"
    )


def test_the_estimator_needs_torch_numpy_and_scipy_alone() -> None:
    fit = "from seminmf_lightning import SemiNMF; import torch; SemiNMF(2).fit(torch.rand(9, 4), 3)"
    assert not {"safetensors", *HEAVY} & loaded_by(fit)


def test_public_names() -> None:
    for name in seminmf_lightning.__all__:
        assert getattr(seminmf_lightning, name) is not None
        assert name in dir(seminmf_lightning)
    with pytest.raises(AttributeError, match="no attribute 'SemiNmf'; it has ActivationDataModule"):
        seminmf_lightning.SemiNmf  # noqa: B018


@pytest.mark.parametrize(("old", "name"), [("hub", "HubSemiNMF"), ("sklearn", "SemiNMFTransformer")])
def test_old_import_paths_work_and_name_the_new(old: str, name: str) -> None:
    sys.modules.pop(f"seminmf_lightning.{old}", None)
    with pytest.warns(DeprecationWarning, match=f"from seminmf_lightning import {name}"):
        module = importlib.import_module(f"seminmf_lightning.{old}")
    assert getattr(module, name) is getattr(seminmf_lightning, name)
