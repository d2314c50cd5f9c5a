"""Run directories in any state, written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import yaml

from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.dictionary_file import save_dictionary

METRICS = {
    "reconstruction_loss": 0.1,
    "r2": 0.8,
    "l0": 12.0,
    "dead_fraction": 0.0,
    "optimality_gap": None,
    "seconds": 3.0,
}


def write_run(
    path: Path, *overrides: str, metrics: str | None = None, D: torch.Tensor | None = None, **config: object
) -> Path:
    (path / ".hydra").mkdir(parents=True)
    (path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    if config:
        (path / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    if metrics is not None:
        (path / "metrics.json").write_text(metrics)
    if D is not None:
        signs = {key: config[key] for key in ("nonnegative", "solver") if key in config}
        save_dictionary(path / "dictionary.safetensors", D, Normalizer(1.0), signs, ())
    return path


def write_sweep(sweep: Path) -> Path:
    """Write ten run directories, one in each state that a run can be in, the finished ones first."""
    for number, penalty in enumerate(("0.1", "0.2")):
        write_run(sweep / str(number), f"l1_penalty={penalty}", "data=npy", metrics=json.dumps(METRICS))
    write_run(sweep / "2", "l1_penalty=0.3", "data=npy")
    (sweep / "2" / "error.txt").write_text("InstantiationException: Error in call\nValueError('no rows')\n")
    write_run(sweep / "3", "l1_penalty=0.4", "data=npy")
    (sweep / "3" / "checkpoints").mkdir()
    (sweep / "3" / "checkpoints" / "last.ckpt").touch()
    write_run(sweep / "4", "l1_penalty=0.5", "data=npy")
    write_run(sweep / "5", "l1_penalty=0.6", "data=npy", metrics='{"r2": 0.')
    write_run(sweep / "6", "l1_penalty=0.7", "data=npy", metrics=json.dumps(METRICS | {"r2": float("nan")}))
    write_run(sweep / "7", "l1_penalty=0.8", "data=npy", metrics='{"r2": 0.5, "reconstruction_loss": "low"}')
    write_run(sweep / "8", "l1_penalty=0.9", "data=npy", metrics="[1]")
    (write_run(sweep / "10", metrics=json.dumps(METRICS)) / ".hydra" / "overrides.yaml").write_text("- {")
    return sweep
