"""Write training checkpoints atomically, and read them without running code or trusting their contents.

A checkpoint is written beside its target, flushed to disk, then moved over it: a kill at any moment leaves
the old file or the new one.  The replaced one stays as ``<name>.previous.ckpt``, in case the disk damages its
successor.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePath
from pickle import UnpicklingError  # the name of an error, nothing else
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from seminmf_lightning.core.commands import command
from seminmf_lightning.io.atomic import keep_previous, whole_file
from seminmf_lightning.io.schema import conform, same_form
from seminmf_lightning.io.untrusted import Refused, file_size, refusing
from seminmf_lightning.learners import Learner
from seminmf_lightning.training.distributed import all_reduce_, gather, world_size
from seminmf_lightning.training.joined_sums import form, joined

COUNTS = {"ready": int, "completed": int}
PROGRESS = {"total": COUNTS, "current": COUNTS}
LOOPS = {
    "fit_loop": {
        "state_dict": dict, "epoch_loop.state_dict": {"_batches_that_stepped": int},
        "epoch_loop.batch_progress": PROGRESS, "epoch_progress": PROGRESS,
    },
    "validate_loop": dict, "test_loop": dict, "predict_loop": dict,
}  # fmt: skip
CHECKPOINT = {
    "epoch": int, "global_step": int, "pytorch-lightning_version": str, "state_dict": dict, "loops": LOOPS,
    "callbacks": dict, "optimizer_states": [dict], "lr_schedulers": [dict], "hyper_parameters": dict,
    "learner": dict,
}  # fmt: skip
"""What Lightning and our module read; the module checks its own parts more closely."""
STEPS_PER_EMPTY_BATCH = 10
"""Version 0.1.0 counted solver steps after the data as batches of this many."""

# --- files


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files on the local disk, replaced atomically, loaded without running code."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        target = Path(path)
        for partial in target.parent.glob(f"{target.name}.*.partial"):  # of a process killed while it wrote
            partial.unlink(missing_ok=True)
        kept = f"the previous checkpoint stays whole: make room and resume with ckpt_path={target}"
        advice = kept if target.exists() else "make room and start again"
        with whole_file(target, advice) as partial, open(partial, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            with suppress(OSError):  # no checkpoint yet, or a file system without hard links
                previous = target.with_name(f"{target.stem}.previous{target.suffix}")
                keep_previous(target, previous, may_copy=False)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """As :func:`read_checkpoint`: always on the CPU and ``weights_only``."""
        return read_checkpoint(Path(path))


def newest_whole(folder: Path) -> Path | None:
    """Return the newest readable checkpoint of ``folder``; a warning names each damaged one."""
    for file in sorted(folder.glob("*.ckpt"), key=lambda file: file.stat().st_mtime_ns, reverse=True):
        try:
            read_checkpoint(file)
        except Refused as error:
            rank_zero_warn(f"{error}; trying an older checkpoint")
        else:
            return file
    return None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU: tensors, containers and plain values alone.

    Tensors are views of the mapped file, so that none is larger than its part of it, and every part is
    compared with its checksum.  The key ``file`` is added, for later error messages.

    Raises:
        FileNotFoundError, Refused: not a checkpoint, a damaged one, or one that contains code.
    """
    size = file_size(path)
    expected = f"a checkpoint that {command('train')} wrote ({size:,} bytes)"
    with refusing(path, f"{expected}; it may be truncated or of another format"):
        stored = _check_archive(path, size)
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except UnpicklingError as error:  # its text advises to trust the file; its context says what is wrong
            reason = str(error.__context__ or "").strip()[:200]
            raise Refused(
                f"{path}: refused: a checkpoint holds tensors and plain values, this one more ({reason}); "
                "nothing in it was run"
            ) from None
        conform(path, checkpoint, CHECKPOINT)
        version = checkpoint["pytorch-lightning_version"]
        if not re.match(r"[2-9]\.\d+", version):
            raise Refused(f"{path}: written by Lightning {version[:20]!r}; 2.0 and later are read")
        storages = [leaf.untyped_storage() for leaf in _leaves(checkpoint) if isinstance(leaf, Tensor)]
        sizes = {storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}
        if sorted(sizes.values()) != stored:
            raise Refused(
                f"{path}: damaged: its tensors do not have the sizes that are stored, {sum(stored):,} "
                "bytes in all"
            )
        for text in (leaf for leaf in _leaves(checkpoint["callbacks"]) if isinstance(leaf, str)):
            if ".." in PurePath(text).parts:  # Lightning deletes old checkpoints by these names
                raise Refused(f"{path}: refused: {text[:200]!r} in it leaves the run's folder")
    return checkpoint | {"file": str(path)}


def _check_archive(path: Path, size: int) -> list[int]:
    """Return the tensor sizes in a zip file, once its parts are known to be uncompressed, to fit and to match
    their checksums."""
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if len({part.filename for part in parts}) < len(parts):
            raise Refused(f"{path}: not a checkpoint: two of its parts have one name")
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise Refused(f"{path}: not a checkpoint: its parts are compressed")
        if sum(part.file_size for part in parts) > size:
            raise Refused(
                f"{path}: not a checkpoint: its parts claim to be larger than the file of {size:,} bytes"
            )
        if damaged := archive.testzip():
            raise Refused(
                f"{path}: damaged: {damaged} does not match its checksum; resume from another checkpoint"
            )
        return sorted(part.file_size for part in parts if "/data/" in part.filename and part.file_size)


def _leaves(value: Any) -> Iterator[Any]:
    """Yield all values in nested containers, which may contain each other repeatedly."""
    pending, seen = [value], set[int]()
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Mapping):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set):
            pending += item
        else:
            yield item


# --- what the module adds to a checkpoint


def state_of_all(learner: Learner, folder: Path) -> dict[str, Any]:
    """Return the learner's state with the pending rows of all processes, so that any number can resume.

    Sums that processes share out are whole on process 0, in a temporary file in ``folder``.
    """
    state = learner.whole_state(learner.state_dict(), lambda x, shares: joined(x, shares, folder))
    if world_size() > 1:
        pending = type(learner.pending)(**{name: t.clone() for name, t in learner.pending.tensors().items()})
        all_reduce_(pending)
        state["pending"] = pending.tensors()
        state |= {key: gather(state[key])[0] for key in learner.row_state}
    return state


def reopen_epoch(checkpoint: dict[str, Any]) -> None:
    """Let a resumed run continue an epoch that ``max_steps`` or ``max_time`` ended, which the trainer counts
    as complete."""
    for counts in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
        counts["processed"] = counts["completed"] = counts["ready"] - 1


def reopen_last_batch(checkpoint: dict[str, Any]) -> None:
    """Let a resumed run repeat the last batch of the epoch, to which the solver steps after it belong."""
    reopen_epoch(checkpoint)
    loop = checkpoint["loops"]["fit_loop"]
    progress = loop["epoch_loop.batch_progress"]
    for name in ("total", "current"):
        counts = progress[name]
        counts |= {
            "started": counts["ready"],
            "processed": counts["ready"] - 1,
            "completed": counts["ready"] - 1,
        }
    progress["is_last_batch"] = False
    for state in loop["state_dict"].get("combined_loader", []):
        if isinstance(state, dict) and state.get("batch"):
            state["batch"] -= 1


def upgrade(checkpoint: dict[str, Any], max_iter: int) -> None:
    """Convert the position of a checkpoint of version 0.1.0, where empty batches after the data stood for
    solver steps."""
    _upgrade_sums(checkpoint)
    batch, loop = checkpoint.get("batch", 0), checkpoint["loops"]["fit_loop"]
    states = loop["state_dict"].get("combined_loader", [])
    exact = set(checkpoint["learner"]) >= {"steps", "checked_error"}
    if "solver_steps" in checkpoint or not exact or not batch or not states or "batches" not in states[0]:
        return
    batches = states[0]["batches"] - -(-max_iter // STEPS_PER_EMPTY_BATCH)
    if batch < batches or batches < 1:
        return
    checkpoint |= {"batch": batches, "solver_steps": STEPS_PER_EMPTY_BATCH * (batch - batches)}
    states[0] |= {"batches": batches, "batch": batches}
    for counts in (loop["epoch_loop.batch_progress"][name] for name in ("total", "current")):
        counts["ready"] = batches
    reopen_last_batch(checkpoint)


def _upgrade_sums(checkpoint: dict[str, Any]) -> None:
    """Convert the sums of a sparse run of version 0.1.0, which kept no rows since the last update."""
    state = checkpoint["learner"]
    pending, atoms = state.get("pending", {}), checkpoint["state_dict"].get("dictionary")
    if "cross" not in pending or not isinstance(atoms, Tensor):
        return
    if float(pending["rows"]):
        raise Refused(
            f"{_name(checkpoint)}: an earlier version wrote it between two updates of the dictionary, "
            "without their rows; resume from a checkpoint of the end of an epoch"
        )
    kept = {name: sums for name, sums in pending.items() if name not in ("gram", "cross")}
    rows = {"rows": atoms[:0].clone(), "_asked": int(state["rows_seen"]) // 512, "_waiting": 0}
    checkpoint["learner"] = dict(state) | {"pending": kept} | rows


def features_of(checkpoint: Mapping[str, Any], concepts: int, features: int) -> int:
    """Return the width d of the dictionary in a checkpoint.

    Args:
        concepts: k that it must have.
        features: d that it must have; 0 accepts any.

    Raises:
        ValueError: it holds no dictionary, or one of another shape.
    """
    file = _name(checkpoint)
    form = {
        "state_dict": {"dictionary": Tensor, "scale": Tensor, "mean": Tensor},
        "batch?": int,
        "solver_steps?": int,
    }
    conform(file, checkpoint, form)
    shape = tuple(checkpoint["state_dict"]["dictionary"].shape)
    if len(shape) != 2:
        raise Refused(f"{file}: the dictionary has shape {shape}; expected (concepts, features)")
    expected = (concepts, features or shape[1])
    if shape != expected:
        raise ValueError(
            f"{file}: it holds a dictionary of {shape[0]} concepts x {shape[1]} features, "
            f"but this run has nb_concepts={expected[0]} and data of {expected[1]} features"
        )
    return shape[1]


def refuse_unless_like(
    checkpoint: Mapping[str, Any], parameters: Mapping[str, Any], learner: Learner
) -> None:
    """Raise Refused unless keys, types and shapes are those of the module's ``parameters`` and of its
    learner's state."""
    file, state = _name(checkpoint), checkpoint.get("learner")
    expected = learner.whole_state(learner.state_dict(), form)
    same_form(file, checkpoint["state_dict"], parameters, "state_dict")
    same_form(file, checkpoint.get("effort", ()), (), "effort")
    if state is None:
        return
    if isinstance(state, Mapping) and set(state) != set(expected):
        raise Refused(
            f"{file}: it was written with other statistics than "
            f"{learner.recipe.statistics_for(learner.features)}; resume with the "
            "statistics and l1_penalty of the run it comes from"
        )
    same_form(file, state, expected, "learner")


def _name(checkpoint: Mapping[str, Any]) -> str:
    return str(checkpoint.get("file", "the checkpoint"))
