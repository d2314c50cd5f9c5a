"""Save and load a trained dictionary as one small portable file.

``dictionary.safetensors``: tensors ``D`` (k, d) float32, ``scale`` () and ``mean`` (d,) float64, with
``a ~ scale * (z D) + mean``; metadata ``config``, ``versions``, ``effort`` and, if there are any, ``labels``
as JSON.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from seminmf_lightning.core.constraints import CONSTRAINTS, Constraint
from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.encoders import Effort
from seminmf_lightning.io.atomic import whole_file
from seminmf_lightning.io.labels import checked_labels
from seminmf_lightning.io.schema import conform
from seminmf_lightning.io.untrusted import (
    NUMBERS,
    Refused,
    open_safetensors,
    parse_json,
    read_tensor,
    refusing,
)
from seminmf_lightning.learners import Recipe

FILE_NAME = "dictionary.safetensors"
REALS = NUMBERS[:4]
OPTIONAL: dict[str, Any] = {"data": dict, "network": {"model": dict, "layer": str}}
"""What training adds to the settings where it is known: the rows, and the network that they come from."""
PACKAGES = ("seminmf-lightning", "torch", "lightning", "numpy", "safetensors")


class SavedDictionary(NamedTuple):
    """The contents of the file."""

    D: Tensor
    normalizer: Normalizer
    config: dict[str, Any]
    """Every setting of training."""
    settings: dict[str, Any]
    """Settings of a :class:`~seminmf_lightning.learners.Recipe` that encodes as training did."""
    effort: Effort
    labels: dict[int, str] = {}  # noqa: RUF012  (never changed)
    """By concept, as saved with the dictionary."""

    @property
    def constraint(self) -> Constraint:
        """Signs of the two factors; ``dictionary`` in files older than the setting."""
        return CONSTRAINTS[self.settings["nonnegative"]]


def save_dictionary(
    path: str | os.PathLike[str], D: Tensor, normalizer: Normalizer, config: Mapping[str, Any],
    effort: Effort, labels: Mapping[int, str] | None = None,
) -> Path:  # fmt: skip
    """Write the file atomically: readers see the old file or the new one, never half.

    Raises:
        OSError: it cannot be written; a full disk is explained.
        ValueError: labels of concepts that there are not, or that are no texts.
    """
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
    if labels:
        texts = {str(concept): text for concept, text in dict(labels).items()}
        checked_labels(path, texts, len(D))  # or nothing could load the file
        metadata["labels"] = json.dumps(texts)
    with whole_file(path, "make room and write it again; a run is resumed from its checkpoint") as partial:
        save_file(tensors, partial, metadata=metadata)
    return path


def without_paths(network: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a file says of a network that is known: no paths; the last part of its path is its name.

    >>> without_paths({"model": {"library": "timm", "path": "/home/me/vit"}, "layer": "blocks.3"})
    {'network': {'model': {'library': 'timm', 'name': 'vit'}, 'layer': 'blocks.3'}}
    """
    if network is None:
        return {}
    model = network["model"]
    kept = {key: model[key] for key in ("library", "architecture", "precision", "weights") if key in model}
    name = PurePath(str(model["path"])).name if model.get("path") else model.get("name")
    return {"network": {"model": kept | ({"name": name} if name else {}), "layer": network["layer"]}}


def load_dictionary(path: str | os.PathLike[str]) -> SavedDictionary:
    """Read the file ``path``, or the one in the run directory ``path``.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not such a file; the message says what is missing.

    >>> load_dictionary("runs/42")
    Traceback (most recent call last):
    FileNotFoundError: runs/42: no such file; give a finished run directory, or its dictionary.safetensors
    """
    path = _file(Path(path))
    with open_safetensors(path) as handle:
        D, scale, mean = (read_tensor(path, handle, name, REALS).clone() for name in ("D", "scale", "mean"))
        with refusing(path, "a dictionary: its metadata cannot be read"):
            metadata = handle.metadata() or {}
    if D.ndim != 2 or 0 in D.shape or mean.shape != D.shape[1:] or scale.numel() != 1:
        raise Refused(
            f"{path}: D {tuple(D.shape)}, mean {tuple(mean.shape)} and scale {tuple(scale.shape)} "
            "do not belong together; expected (k, d), (d,) and ()"
        )
    if not mean.isfinite().all() or not 0 < float(scale) < math.inf:
        raise Refused(f"{path}: scale must be above 0 and finite, mean finite; found scale {float(scale):g}")
    if "config" not in metadata:
        raise Refused(f"{path}: no 'config' in its metadata, so the encoder is unknown")
    config = parse_json(path, metadata["config"], "a dictionary: its 'config' is not JSON")
    given = {key for key in OPTIONAL if isinstance(config, dict) and config.get(key) is not None}
    conform(path, config, {key: OPTIONAL[key] for key in given}, "config")
    effort = parse_json(path, metadata.get("effort", "[]"), "a dictionary: its 'effort' is not JSON")
    conform(path, effort, [float], "effort")
    labels = parse_json(path, metadata.get("labels", "{}"), "a dictionary: its 'labels' is not JSON")
    settings = _settings(path, config, len(D))
    signs = CONSTRAINTS[settings["nonnegative"]]
    wrong = D[signs.forbidden(D)]
    if len(wrong):
        raise Refused(
            f"{path}: D must be finite{' and nonnegative' * signs.nonnegative_atoms} "
            f"(nonnegative={signs.name}); {len(wrong):,} of its numbers are not, such as {float(wrong[0]):g}"
        )
    if mean.any() and settings["normalize"] != "center":
        raise Refused(f"{path}: mean is not zero, but normalize={settings['normalize']} centres nothing")
    return SavedDictionary(
        D, Normalizer(float(scale), mean if mean.any() else None), config, settings, tuple(effort),
        checked_labels(path, labels, len(D)),
    )  # fmt: skip


def _settings(path: Path, config: Mapping[str, Any], concepts: int) -> dict[str, Any]:
    """Return the settings that make a recipe, without ``target_l0``: the penalty is as tuned."""
    known = {field.name for field in fields(Recipe)} - {"target_l0"}
    with refusing(path, "a dictionary with settings that this version knows"):
        recipe = Recipe.from_saved(
            {"nb_concepts": concepts} | {name: value for name, value in config.items() if name in known}
        )
    if recipe.nb_concepts != concepts:
        raise Refused(f"{path}: D has {concepts} atoms, but its config says nb_concepts={recipe.nb_concepts}")
    return {name: value for name, value in recipe.plain().items() if name in known}


def _file(path: Path) -> Path:
    """Return the file ``path``, or the one in the directory ``path``."""
    if path.is_dir() and not (path / FILE_NAME).is_file():
        contents = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
        last = path / "checkpoints" / "last.ckpt"
        cure = (
            f"finish the run with ckpt_path={last}"
            if last.is_file()
            else f"a finished run directory holds {FILE_NAME}"
        )
        raise FileNotFoundError(f"{path}: no dictionary here, found {contents}; {cure}")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; give a finished run directory, or its {FILE_NAME}")
    return path / FILE_NAME if path.is_dir() else path


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions
