"""Write codes to disk while they are computed: a dense ``.npy`` or a sparse ``.npz`` (scipy CSR).

Dense codes go to one memory-mapped array.  Each process appends sparse codes to files beside the target,
which are joined piece by piece at the end; at most one batch is in memory.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

LARGEST_INT32 = 2**31 - 1


class CodesWriter(BasePredictionWriter):
    """Writes what ``predict_step`` returns, for batches whose rows come in order.

    Args:
        output: ``.npy`` for dense codes (n, k) float32, ``.npz`` for a CSR matrix that
            ``scipy.sparse.load_npz`` reads.
        rows: n.
        concepts: k.

    Raises:
        ValueError: ``output`` has another suffix.
    """

    def __init__(self, output: Path, rows: int, concepts: int) -> None:
        super().__init__(write_interval="batch")
        if output.suffix not in (".npy", ".npz"):
            raise ValueError(f"output={output} must end in .npy (dense codes) or .npz (sparse codes)")
        self.output, self.rows, self.concepts = output, rows, concepts
        self.sparse = output.suffix == ".npz"
        self.partial = output.with_name(output.name + ".partial")
        self._dense: np.ndarray | None = None
        self._parts: dict[str, BinaryIO] = {}

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self.output.parent.mkdir(parents=True, exist_ok=True)
        if self.sparse:
            self._parts = {name: open(self._part(name, trainer.global_rank), "wb") for name in PARTS}
            return
        if trainer.is_global_zero:
            np.lib.format.open_memmap(self.partial, "w+", np.float32, (self.rows, self.concepts)).flush()
        trainer.strategy.barrier("codes file")
        self._dense = np.lib.format.open_memmap(self.partial, "r+")

    def write_on_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, prediction: Tensor,
        batch_indices: Sequence[int] | None, batch: Any, batch_idx: int, dataloader_idx: int,
    ) -> None:  # fmt: skip
        codes, numbers = prediction.float().cpu(), batch[1].cpu().numpy()
        if self._dense is not None:
            self._dense[numbers] = codes.numpy()
            return
        row, column = codes.nonzero(as_tuple=True)
        self._parts["data"].write(codes[row, column].numpy().tobytes())
        self._parts["indices"].write(column.int().numpy().tobytes())
        counts = torch.bincount(row, minlength=len(codes))
        self._parts["counts"].write(counts.int().numpy().tobytes())
        self._parts["pieces"].write(np.array([len(codes), len(row)], dtype=np.int64).tobytes())

    def on_predict_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._dense is not None:
            self._dense.flush()  # type: ignore[attr-defined]
            self._dense = None
        for part in self._parts.values():
            part.close()
        trainer.strategy.barrier("codes written")
        if trainer.is_global_zero:
            if self.sparse:
                self._assemble(trainer.world_size)
            self.partial.replace(self.output)
        trainer.strategy.barrier("codes complete")

    def _part(self, name: str, rank: int) -> Path:
        return self.output.with_name(f"{self.output.name}.{name}.{rank}.partial")

    def _assemble(self, world: int) -> None:
        """Join the pieces in the order of rows: by batch, and within a batch by process."""
        pieces = [
            np.fromfile(self._part("pieces", rank), dtype=np.int64).reshape(-1, 2) for rank in range(world)
        ]
        nonzeros = int(sum(piece[:, 1].sum() for piece in pieces))
        index = np.int32 if nonzeros <= LARGEST_INT32 else np.int64
        with zipfile.ZipFile(self.partial, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, value in (
                ("format", np.array(b"csr")),
                ("shape", np.array([self.rows, self.concepts])),
            ):
                with archive.open(f"{name}.npy", "w") as file:
                    np.lib.format.write_array(file, value, allow_pickle=False)
            self._join(archive, "data", np.float32, np.float32, pieces, (nonzeros,), column=1)
            self._join(archive, "indices", np.int32, index, pieces, (nonzeros,), column=1)
            self._join(archive, "counts", np.int32, index, pieces, (self.rows + 1,), column=0)
        for rank in range(world):
            for name in PARTS:
                self._part(name, rank).unlink()

    def _join(
        self, archive: zipfile.ZipFile, name: str, stored: type, written: type, pieces: list[np.ndarray],
        shape: tuple[int, ...], *, column: int,
    ) -> None:  # fmt: skip
        files = [open(self._part(name, rank), "rb") for rank in range(len(pieces))]
        entry = "indptr" if name == "counts" else name
        with archive.open(f"{entry}.npy", "w", force_zip64=True) as target:
            descr = np.lib.format.dtype_to_descr(np.dtype(written))
            header = {"descr": descr, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(target, header)
            running = 0
            if name == "counts":
                target.write(np.zeros(1, dtype=written).tobytes())
            for batch in range(len(pieces[0])):
                for rank, file in enumerate(files):
                    size = int(pieces[rank][batch, column])
                    values: np.ndarray = np.frombuffer(
                        file.read(size * np.dtype(stored).itemsize), dtype=stored
                    ).astype(written)
                    if name == "counts":  # indptr is the running sum of the counts
                        values = (running + np.cumsum(values, dtype=np.int64)).astype(written)
                        running = int(values[-1]) if len(values) else running
                    target.write(values.tobytes())
        for file in files:
            file.close()


PARTS = ("data", "indices", "counts", "pieces")


def enough_space(output: Path, size: int) -> None:
    """Raise OSError if the folder of ``output`` has no room for ``size`` bytes."""
    folder = next(parent for parent in output.resolve().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(f"{output}: the codes need {size:,} bytes, but {folder} has {free:,} free")
