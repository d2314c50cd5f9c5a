"""The finished dictionary as one small portable file.

``dictionary.safetensors``: tensors ``D`` (k, d) float32, ``scale`` () and ``mean`` (d,) float64, with
``a ~ scale * (z D) + mean``; metadata ``config``, ``versions`` and ``effort`` as JSON.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from seminmf_lightning.encoders import Effort
from seminmf_lightning.normalize import Normalizer

FILE_NAME = "dictionary.safetensors"
PACKAGES = ("seminmf-lightning", "torch", "lightning", "numpy", "safetensors")


class Exported(NamedTuple):
    """What the file holds."""

    D: Tensor
    normalizer: Normalizer
    config: dict[str, Any]
    effort: Effort


def save_dictionary(
    path: str | os.PathLike[str], D: Tensor, normalizer: Normalizer, config: Mapping[str, Any], effort: Effort
) -> Path:
    """Write the file beside its target, then move it there: readers see the old file or the new one, never half."""
    path = Path(path)
    mean = normalizer.mean if normalizer.mean is not None else torch.zeros(D.shape[1])
    tensors = {
        "D": D.detach().float().cpu().contiguous(),
        "scale": torch.tensor(normalizer.scale, dtype=torch.float64),
        "mean": mean.double().cpu().contiguous(),
    }
    metadata = {
        "config": json.dumps(dict(config)),
        "versions": json.dumps(_versions()),
        "effort": json.dumps(list(effort)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    save_file(tensors, partial, metadata=metadata)
    os.replace(partial, path)
    return path


def load_dictionary(path: str | os.PathLike[str]) -> Exported:
    """Read the file, or the one in a run directory.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no such file; the message says what is missing.
    """
    path = _file(Path(path))
    try:
        with safe_open(path, framework="pt") as handle:
            names, metadata = set(handle.keys()), handle.metadata() or {}
            if missing := {"D", "scale", "mean"} - names:
                raise ValueError(f"{path}: no tensor {', '.join(sorted(missing))}; it holds {', '.join(sorted(names))}")
            D, scale, mean = (handle.get_tensor(name).clone() for name in ("D", "scale", "mean"))
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole .safetensors file ({error})") from error
    if D.ndim != 2 or mean.shape != D.shape[1:] or scale.numel() != 1:
        raise ValueError(
            f"{path}: D {tuple(D.shape)}, mean {tuple(mean.shape)} and scale {tuple(scale.shape)} "
            "do not belong together; expected (k, d), (d,) and ()"
        )
    if "config" not in metadata:
        raise ValueError(f"{path}: no 'config' in its metadata, so that the encoder is not known")
    normalizer = Normalizer(float(scale), mean if mean.any() else None)
    return Exported(D, normalizer, json.loads(metadata["config"]), tuple(json.loads(metadata.get("effort", "[]"))))


def _file(path: Path) -> Path:
    """The dictionary at ``path`` or in the directory ``path``."""
    if path.is_dir() and not (path / FILE_NAME).is_file():
        found = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
        last = path / "checkpoints" / "last.ckpt"
        cure = f"finish the run with ckpt_path={last}" if last.is_file() else f"a finished run directory holds {FILE_NAME}"
        raise FileNotFoundError(f"{path}: no dictionary here, found {found}; {cure}")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; give a finished run directory, or its {FILE_NAME}")
    return path / FILE_NAME if path.is_dir() else path


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
