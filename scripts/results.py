"""Files that scripts write: whole or absent, and never in place of another that nobody said may go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from launch import is_first_process
from omegaconf import DictConfig, OmegaConf

from seminmf_lightning.whole_file import whole_file


def refuse_to_overwrite(output: Path, overwrite: bool) -> None:
    """Raise FileExistsError if there is such a file already and nobody said that it may go."""
    if is_first_process() and output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists; choose another with output=..., or replace it with overwrite=true")


def write_json(path: Path, figures: dict[str, Any]) -> None:
    """Write figures, whole or not at all."""
    with whole_file(path, "make room and run the same command again") as partial:
        partial.write_text(json.dumps(figures, indent=2) + "\n")


def write_settings(folder: Path, cfg: DictConfig) -> None:
    """What Hydra was told and made of it, in the files that Hydra itself would write before anybody has looked."""
    told = HydraConfig.get()
    folder.mkdir(parents=True, exist_ok=True)
    for name, node in (("config", cfg), ("hydra", OmegaConf.create({"hydra": told})), ("overrides", told.overrides.task)):
        (folder / f"{name}.yaml").write_text(OmegaConf.to_yaml(node))
