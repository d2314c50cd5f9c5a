"""The directory of a run: whose it is, what it says of a run that fails or goes on, how it is found again."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from seminmf_lightning.cli.launch import is_first_process
from seminmf_lightning.dictionary_file import FILE_NAME
from seminmf_lightning.io.atomic import full_disk_explained


def refuse_other_run(run_dir: Path, ckpt_path: str | None) -> None:
    """Raise FileExistsError if the directory holds a run, unless it is that run which goes on."""
    checkpoints = sorted(path.relative_to(run_dir) for path in run_dir.glob("checkpoints/*.ckpt"))
    found = [
        *map(str, checkpoints),
        *(name for name in (FILE_NAME, "metrics.json") if (run_dir / name).exists()),
    ]
    if not found:
        return
    if ckpt_path is not None:
        refuse_unless_file(ckpt_path)
        if Path(ckpt_path).resolve().is_relative_to(run_dir.resolve()):
            return
    raise FileExistsError(
        f"{run_dir} holds a run already ({', '.join(found)}); choose another hydra.run.dir, "
        f"or resume it with ckpt_path={run_dir / 'checkpoints' / 'last.ckpt'} if that is whole"
    )


def refuse_unless_file(ckpt_path: str) -> None:
    """Raise FileNotFoundError where there is no checkpoint to resume."""
    if not Path(ckpt_path).is_file():
        raise FileNotFoundError(
            f"ckpt_path={ckpt_path!r} is not a file; a run keeps its own in <run>/checkpoints/last.ckpt"
        )


@contextmanager
def finished_run_kept(run_dir: Path) -> Iterator[None]:
    """Put aside what a finished run says of itself while it goes on, and back if that fails before it has
    changed a thing."""
    if not is_first_process():
        yield
        return
    aside = {run_dir / name: run_dir / f"{name}.previous" for name in ("metrics.json", ".hydra")}
    before, finished = _changed(run_dir), (run_dir / "metrics.json").is_file()
    if finished:
        for file, previous in aside.items():
            if file.exists():
                _remove(previous)
                file.replace(previous)
    try:
        yield
    except Exception:
        if finished and _changed(run_dir) == before:
            for file, previous in aside.items():
                if previous.exists():
                    _remove(file)
                    previous.replace(file)
        raise
    for previous in aside.values():
        _remove(previous)


def _changed(run_dir: Path) -> list[int]:
    """When the files that a run is made of were written."""
    return [
        path.stat().st_mtime_ns
        for path in (run_dir / FILE_NAME, *sorted(run_dir.glob("checkpoints/*")))
        if path.exists()
    ]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def failure_kept(path: Path) -> Iterator[None]:
    """Write why the run failed, for ``scripts/compare.py``; a run that is resumed forgets its last
    failure."""
    path.unlink(missing_ok=True)
    try:
        with full_disk_explained(path.parent, "make room and resume the run from its last checkpoint"):
            yield
    except Exception as error:
        with suppress(OSError):  # the disk may be full
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "x") as file:  # of several processes the first: the others fail because it did
                file.write("".join(traceback.format_exception_only(error)))
        raise


def write_settings(folder: Path, cfg: DictConfig) -> None:
    """What Hydra was told and made of it, in the files that Hydra itself would write before anybody has
    looked."""
    told = HydraConfig.get()
    folder.mkdir(parents=True, exist_ok=True)
    for name, node in (
        ("config", cfg),
        ("hydra", OmegaConf.create({"hydra": told})),
        ("overrides", told.overrides.task),
    ):
        (folder / f"{name}.yaml").write_text(OmegaConf.to_yaml(node))


def same_place() -> str:
    """What sends this command to the same directories once more."""
    told = HydraConfig.get()
    return (
        f"hydra.sweep.dir={told.sweep.dir}"
        if told.mode == RunMode.MULTIRUN
        else f"hydra.run.dir={told.run.dir}"
    )
