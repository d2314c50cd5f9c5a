"""A training checkpoint, read without running anything in it and without believing what it says of itself."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from pickle import UnpicklingError  # the name of an error, nothing else
from typing import Any

import torch

from seminmf_lightning.io.schema import conform
from seminmf_lightning.io.untrusted import Refused, file_size, refusing

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
    "epoch": int, "global_step": int, "pytorch-lightning_version": str, "state_dict": dict, "loops": LOOPS, "callbacks": dict,
    "optimizer_states": [dict], "lr_schedulers": [dict], "hyper_parameters": dict, "learner": dict,
}  # fmt: skip
"""What Lightning and our module read of one; the module looks at its own parts more closely."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint on the CPU: tensors, containers and plain values alone.

    Tensors are views of the mapped file, so that none is larger than its part of it, and every part is held
    against its checksum.  ``file`` is added, for whoever finds fault with the rest.

    Raises:
        FileNotFoundError, Refused: not a checkpoint, a damaged one, or one with anything in it that would
            have to be run.
    """
    size = file_size(path)
    with refusing(
        path,
        f"a checkpoint that scripts/train.py wrote ({size:,} bytes); it may be truncated or of another format",
    ):
        stored = _check_archive(path, size)
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (
            UnpicklingError
        ) as error:  # whose text advises to trust the file; what was wrong is in what it came from
            reason = str(error.__context__ or "").strip()[:200]
            raise Refused(
                f"{path}: refused: a checkpoint holds tensors and plain values, this one more ({reason}); nothing in it was run"
            ) from None
        conform(path, found, CHECKPOINT)
        if not re.match(r"[2-9]\.\d+", found["pytorch-lightning_version"]):
            raise Refused(
                f"{path}: of Lightning {found['pytorch-lightning_version'][:20]!r}; 2.0 and later are read"
            )
        storages = [leaf.untyped_storage() for leaf in _leaves(found) if isinstance(leaf, torch.Tensor)]
        held = sorted(
            {storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}.values()
        )
        if held != stored:
            raise Refused(
                f"{path}: damaged: its tensors are not of the sizes that are stored, {sum(stored):,} bytes in all"
            )
        for text in (leaf for leaf in _leaves(found["callbacks"]) if isinstance(leaf, str)):
            if (
                ".." in PurePath(text).parts
            ):  # Lightning deletes checkpoints that are no longer wanted, by these names
                raise Refused(f"{path}: refused: {text[:200]!r} in it leaves the run's folder")
    return found | {"file": str(path)}


def _check_archive(path: Path, size: int) -> list[int]:
    """The sizes of the tensors in a zip file whose parts are stored as they are, fit into it, and have their
    checksums."""
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if len({part.filename for part in parts}) < len(parts):
            raise Refused(f"{path}: not a checkpoint: two of its parts have one name")
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise Refused(f"{path}: not a checkpoint: its parts are compressed")
        if sum(part.file_size for part in parts) > size:
            raise Refused(
                f"{path}: not a checkpoint: its parts say that they are larger than the file of {size:,} bytes"
            )
        if damaged := archive.testzip():
            raise Refused(
                f"{path}: damaged: {damaged} does not have its checksum; resume from another checkpoint"
            )
        return sorted(part.file_size for part in parts if "/data/" in part.filename and part.file_size)


def _leaves(value: Any) -> Iterator[Any]:
    """All that is no container in nested containers, which may hold one another any number of times."""
    pending, seen = [value], set[int]()
    while pending:
        found = pending.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, Mapping):
            pending += [*found.keys(), *found.values()]
        elif isinstance(found, list | tuple | set):
            pending += found
        else:
            yield found
