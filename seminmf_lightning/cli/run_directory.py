"""Write the files of commands: run directories with settings, metrics and errors, and single results."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from seminmf_lightning.cli.launch import is_first_process
from seminmf_lightning.core.commands import command
from seminmf_lightning.dictionary_file import FILE_NAME
from seminmf_lightning.explain.runs import METRICS_FILE
from seminmf_lightning.io.atomic import full_disk_explained, keep_previous, whole_file
from seminmf_lightning.io.labels import LABELS_FILE


def folder_of(run: str | Path) -> Path:
    """Return the run directory, or the folder of a dictionary file."""
    return Path(run) if Path(run).is_dir() else Path(run).parent


def refuse_unwritable(folder: Path, key: str) -> None:
    """Raise PermissionError if no file can be made in ``folder``; ``key`` is the setting that changes it."""
    folder = folder.absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise PermissionError(
            f"cannot write to {existing} ({error.strerror}): run the command in a folder of yours, "
            f"or give {key}=..."
        ) from error


def make_room(output: Path, run: str | Path, overwrite: bool) -> None:
    """Keep a result that is about to be replaced as ``<name>.previous``.

    Results in the folder of ``run`` are its own and can be made again; others are replaced only if asked to.

    Raises:
        FileExistsError: the file may belong to another run, is what this one is made of, or is a folder.
        PermissionError: no file can be made in its folder.
    """
    if not is_first_process():
        return
    refuse_unwritable(output.parent, "output")
    if not output.exists():
        return
    own = output.parent.resolve() == folder_of(run).resolve() and output.name in (
        FILE_NAME, METRICS_FILE, LABELS_FILE,
    )  # fmt: skip
    if own or output.is_dir() or (Path(run).exists() and output.samefile(run)):
        what = "a folder" if output.is_dir() else f"a file that {run} is made of"
        raise FileExistsError(f"{output} is {what}, and is not replaced; choose another name with output=...")
    if not overwrite and output.parent.resolve() != folder_of(run).resolve():
        raise FileExistsError(
            f"{output} exists and may belong to another run than {run}; "
            "choose another name with output=..., or replace it with overwrite=true"
        )
    keep_previous(output, output.with_name(f"{output.name}.previous"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    with whole_file(path, "make room and run the same command again") as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def refuse_other_run(run_dir: Path, ckpt_path: str | None) -> None:
    """Raise FileExistsError if the directory holds a run, unless ``ckpt_path`` resumes that run."""
    files = [str(path.relative_to(run_dir)) for path in sorted(run_dir.glob("checkpoints/*.ckpt"))]
    files += [name for name in (FILE_NAME, METRICS_FILE) if (run_dir / name).exists()]
    if not files:
        return
    if ckpt_path is not None:
        refuse_unless_file(ckpt_path)
        if Path(ckpt_path).resolve().is_relative_to(run_dir.resolve()):
            return
    raise FileExistsError(
        f"{run_dir} holds a run already ({', '.join(files)}); choose another hydra.run.dir, "
        f"or resume it with ckpt_path={run_dir / 'checkpoints' / 'last.ckpt'} if that is whole"
    )


def refuse_unless_file(ckpt_path: str) -> None:
    """Raise FileNotFoundError if there is no checkpoint to resume."""
    if not Path(ckpt_path).is_file():
        raise FileNotFoundError(
            f"ckpt_path={ckpt_path!r} is not a file; a run keeps its own in <run>/checkpoints/last.ckpt"
        )


@contextmanager
def finished_run_kept(run_dir: Path) -> Iterator[None]:
    """Move metrics.json and .hydra/ aside while a finished run resumes; restore them if it fails early."""
    if not is_first_process():
        yield
        return
    previous = {run_dir / name: run_dir / f"{name}.previous" for name in (METRICS_FILE, ".hydra")}
    before, finished = _modification_times(run_dir), (run_dir / METRICS_FILE).is_file()
    if finished:
        for path, aside in previous.items():
            _replace(path, aside)
    try:
        yield
    except Exception:
        if finished and _modification_times(run_dir) == before:
            for path, aside in previous.items():
                _replace(aside, path)
        raise
    for aside in previous.values():
        _remove(aside)


def _modification_times(run_dir: Path) -> list[int]:
    """Modification times of the dictionary and the checkpoints."""
    files = (run_dir / FILE_NAME, *sorted(run_dir.glob("checkpoints/*")))
    return [file.stat().st_mtime_ns for file in files if file.exists()]


def _replace(path: Path, target: Path) -> None:
    """Move a file or folder, if it exists, over another."""
    if path.exists():
        _remove(target)
        path.replace(target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def failure_kept(path: Path) -> Iterator[None]:
    """Write the reason of a failure to ``path``, which ``compare`` shows; a resumed run removes it first."""
    path.unlink(missing_ok=True)
    try:
        with full_disk_explained(path.parent, "make room and resume the run from its last checkpoint"):
            yield
    except Exception as error:
        with suppress(OSError):  # the disk may be full
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "x") as file:  # the first of several processes: the others fail because it did
                file.write("".join(traceback.format_exception_only(error)))
        raise


def holds_nothing(run_dir: Path) -> bool:
    """Whether a directory is empty, except for Hydra's empty log."""
    return all(
        path.is_file() and path.suffix == ".log" and not path.stat().st_size for path in run_dir.glob("*")
    )


@contextmanager
def no_trace(run_dir: Path) -> Iterator[None]:
    """Remove a new run directory, and the folders of date and time above it, if its settings are refused."""
    new = holds_nothing(run_dir) and not sweeping() and is_first_process()
    try:
        yield
    except Exception:
        if new:
            _remove(run_dir)
            with suppress(OSError, ValueError):  # not empty, or elsewhere
                for folder in run_dir.absolute().relative_to(Path.cwd()).parents:
                    folder.rmdir() if folder != Path() else None
        raise


def write_settings(folder: Path, cfg: DictConfig) -> None:
    """Write the config and the overrides, in the files that Hydra would write before a run is checked."""
    hydra = HydraConfig.get()
    folder.mkdir(parents=True, exist_ok=True)
    for name, node in (
        ("config", cfg),
        ("hydra", OmegaConf.create({"hydra": hydra})),
        ("overrides", hydra.overrides.task),
    ):
        (folder / f"{name}.yaml").write_text(OmegaConf.to_yaml(node))


def same_directory() -> str:
    """Return the override that selects this run directory again."""
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        return f"hydra.sweep.dir={hydra.sweep.dir}"
    return f"hydra.run.dir={hydra.run.dir}"


def sweeping() -> bool:
    """Whether this run is a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def shown_path(path: str | Path) -> str:
    """Return a path relative to the current folder, quoted for the shell."""
    path = Path(path).absolute()
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def next_commands(*lines: str) -> list[str]:
    """Return the lines that suggest what to type next.  Each of ``lines`` is ``<command> <arguments>``.

    >>> next_commands("train data=shards", "report run=r")
    ['next  seminmf train data=shards', '      seminmf report run=r']
    """
    typed = [f"{command(name)} {arguments}" for name, _, arguments in (line.partition(" ") for line in lines)]
    return [("next  " if number == 0 else "      ") + line for number, line in enumerate(typed)]
