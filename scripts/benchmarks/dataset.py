"""The rows that every measurement uses: a normalised training file and a held-out file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from seminmf_lightning import ActivationDataModule
from seminmf_lightning.core.constraints import CONSTRAINTS
from seminmf_lightning.core.linalg import unit_atoms
from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.core.objective import lasso_duality_gap
from seminmf_lightning.data import DemoRows, NpyRows
from seminmf_lightning.encoders.lasso import Lasso

HELD_OUT = 4096
EXACT = 1e-5


def split(data: Path | None, folder: Path) -> tuple[Path, Path]:
    """Write rows of ``data`` (.npy) or of the demo, shuffled, with mean norm 1, as ``train.npy`` and
    ``held_out.npy``."""
    module = ActivationDataModule(DemoRows() if data is None else NpyRows(str(data)), val_fraction=0.1)
    module.prepare_data()
    module.setup()
    assert module.train_rows is not None and module.val_rows is not None
    generator = np.random.default_rng(0)
    parts = {
        "train": module.train_rows.rows(generator.permutation(len(module.train_rows))),
        "held_out": module.val_rows.rows(generator.permutation(len(module.val_rows))[:HELD_OUT]),
    }
    scale = Normalizer.fit(module.source.read(parts["train"][:16_384]), "scale")
    paths = []
    for name, rows in parts.items():
        paths.append(folder / f"{name}.npy")
        np.save(paths[-1], scale.apply(module.source.read(rows)).float().numpy())
    return paths[0], paths[1]


def load(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.load(path, allow_pickle=False)).float()


def null_atoms(A: torch.Tensor, k: int, signs: str) -> dict[str, torch.Tensor]:
    """Return k unit atoms that nothing was learned for: random ones, and rows of A."""
    constraint, generator = CONSTRAINTS[signs], torch.Generator().manual_seed(1)
    random = constraint.random_atoms(k, A.shape[1], generator).float()
    rows = A[torch.randperm(len(A), generator=generator)[:k]]
    atoms = {"random unit atoms": random, "data rows as atoms": constraint.directions(rows)[:k]}
    return {name: unit_atoms(D) for name, D in atoms.items()}


def held_out_objective(D: torch.Tensor, path: Path, penalty: float) -> float:
    """Mean of ``1/2 ||a - z D||^2 + penalty ||z||_1`` over the held-out rows, with exact codes."""
    A = load(path)
    Z = Lasso(l1_penalty=penalty, precise_gap=EXACT).precise(D.to(A))(A)
    return float(lasso_duality_gap(A, Z, D.to(A), penalty)[0].mean())


def anonymous_kilobytes() -> int:
    """Return the memory of this process that no file backs (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1])
