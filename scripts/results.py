"""Files that scripts write: whole or absent, and never in place of another that nobody said may go."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from launch import is_first_process
from omegaconf import DictConfig, OmegaConf

from seminmf_lightning.export import FILE_NAME
from seminmf_lightning.whole_file import whole_file


def refuse_to_overwrite(output: Path, overwrite: bool) -> None:
    """Raise FileExistsError if there is such a file already and nobody said that it may go."""
    if is_first_process() and output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists; choose another with output=..., or replace it with overwrite=true")


def write_json(path: Path, figures: dict[str, Any]) -> None:
    """Write figures, whole or not at all."""
    with whole_file(path, "make room and run the same command again") as partial:
        partial.write_text(json.dumps(figures, indent=2) + "\n")


@contextmanager
def finished_run_kept(run_dir: Path) -> Iterator[None]:
    """Put aside what a finished run says of itself while it goes on, and back if that fails before it has changed a thing."""
    if not is_first_process() or not (run_dir / "metrics.json").is_file():
        yield
        return
    aside = {run_dir / name: run_dir / f"{name}.previous" for name in ("metrics.json", ".hydra")}
    before = _changed(run_dir)
    for file, previous in aside.items():
        if file.exists():
            _remove(previous)
            file.replace(previous)
    try:
        yield
    except Exception:
        if _changed(run_dir) == before:
            for file, previous in aside.items():
                if previous.exists():
                    _remove(file)
                    previous.replace(file)
        raise
    for previous in aside.values():
        _remove(previous)


def _changed(run_dir: Path) -> list[int]:
    """When the files that a run is made of were written."""
    return [path.stat().st_mtime_ns for path in (run_dir / FILE_NAME, *sorted(run_dir.glob("checkpoints/*"))) if path.exists()]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_settings(folder: Path, cfg: DictConfig) -> None:
    """What Hydra was told and made of it, in the files that Hydra itself would write before anybody has looked."""
    told = HydraConfig.get()
    folder.mkdir(parents=True, exist_ok=True)
    for name, node in (("config", cfg), ("hydra", OmegaConf.create({"hydra": told})), ("overrides", told.overrides.task)):
        (folder / f"{name}.yaml").write_text(OmegaConf.to_yaml(node))
