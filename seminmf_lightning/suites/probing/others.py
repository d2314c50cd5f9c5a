"""What a suite reads beside the run: rows that it was trained on, other runs and autoencoders."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seminmf_lightning.data.build import build_data
from seminmf_lightning.data.network import differing
from seminmf_lightning.dictionary_file import SavedDictionary, load_dictionary
from seminmf_lightning.suites.probing.lines import Features, of_run
from seminmf_lightning.suites.probing.sae import sae_features


def training_rows(settings: Mapping[str, Any], saved: SavedDictionary) -> Tensor:
    """Return training rows of the run, from which baselines are made.

    Raises:
        ValueError: rows of another width.
    """
    data = build_data(settings)
    data.prepare_data()
    data.setup("fit")
    sample: Tensor = data.sample().float()
    if sample.shape[1] != saved.D.shape[1]:
        raise ValueError(
            f"data={settings['name']}: rows of {sample.shape[1]} features, but the run has "
            f"{saved.D.shape[1]}; give the data of the run's own layer"
        )
    return sample


def other_lines(
    run: Path, saved: SavedDictionary, against: Sequence[str], sae: Sequence[str], sae_nonzeros: int | None,
    suite: str, device: torch.device,
) -> list[Features]:  # fmt: skip
    """Return the lines of other runs and autoencoders; ``suite`` is how messages name the settings.

    Raises:
        ValueError: one of another width, or two lines of one name.
    """
    width, lines = saved.D.shape[1], []
    for path in against:
        other = load_dictionary(path)
        if other.D.shape[1] != width:
            raise ValueError(
                f"{suite}.against={path} has {other.D.shape[1]} features, but {run} has "
                f"{width}; compare runs of one layer"
            )
        if names := differing(other.config.get("network"), saved.config.get("network")):
            warnings.warn(
                f"{suite}.against={path} was learned from {names[0]}, but {run} from {names[1]}", stacklevel=2
            )
        lines.append(of_run(str(path), other, device))
    lines += [sae_features(path, width, sae_nonzeros, device) for path in sae]
    if repeated := {line.name for line in lines if [one.name for one in lines].count(line.name) > 1}:
        raise ValueError(f"two lines would be called {sorted(repeated)[0]!r}; give each file once")
    return lines
