"""Files that are broken, or break while they are read, are named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ROOT
from file_faults import Break
from fitting import fit
from harvests import small_store
from safetensors.torch import save_file

from seminmf_lightning import ActivationDataModule
from seminmf_lightning.data import HarvestedRows, NpyRows, SafetensorsRows

# --- broken when they are opened


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    for kind, source in (("npy", NpyRows), ("safetensors", SafetensorsRows)):
        (tmp_path / f"1.{kind}").symlink_to(tmp_path / f"gone.{kind}")  # listed by the glob, and not there
        with pytest.raises(FileNotFoundError, match=rf"1\.{kind}: no such file"):
            len(source(str(tmp_path)))


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    save_file({"activations": torch.rand(200, 8)}, tmp_path / "0.safetensors")
    save_file({"activations": torch.rand(200, 8)}, tmp_path / "1.safetensors")
    os.truncate(tmp_path / "1.safetensors", 3000)
    with pytest.raises(ValueError, match=r"1\.safetensors: not a whole .* it may be truncated"):
        len(SafetensorsRows(str(tmp_path)))


def test_a_flipped_bit_is_found_by_its_checksum(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    shard = Path(HarvestedRows(str(store)).shards[0].name)
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    assert len(HarvestedRows(str(store)))  # of the right size, and finite: only the checksum can tell
    with pytest.raises(ValueError, match=rf"{shard.name}: damaged: its sha256 .* run seminmf harvest again"):
        fit(ActivationDataModule(HarvestedRows(str(store), verify=True)), tmp_path / "run")


# --- changed while a run reads them


@pytest.mark.parametrize("penalty", [0.0, 0.05])
@pytest.mark.parametrize(
    ("how", "word"), [("replace", "replaced"), ("delete", "deleted"), ("write", "changed")]
)
def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, signed: torch.Tensor, how: str, word: str, penalty: float
) -> None:
    for name, part in (("a", signed[:300]), ("b", signed[300:])):
        np.save(tmp_path / f"{name}.npy", part.numpy())
    data = ActivationDataModule(str(tmp_path / "?.npy"), batch_size=100)
    with pytest.raises(ValueError, match=rf"b\.npy: was {word} while it was being read.*last checkpoint"):
        fit(data, tmp_path, Break(how, str(tmp_path / "b.npy")), l1_penalty=penalty)


@pytest.mark.parametrize("kind", ["npy", "safetensors"])
def test_a_file_truncated_while_it_is_read_is_an_error_and_no_crash(tmp_path: Path, kind: str) -> None:
    rows, path = torch.randn(20_000, 32), tmp_path / f"rows.{kind}"
    np.save(path, rows.numpy()) if kind == "npy" else save_file({"activations": rows}, path)
    program = f"""
from pathlib import Path

from file_faults import Break
from fitting import fit
from seminmf_lightning import ActivationDataModule
data = ActivationDataModule({str(path)!r}, batch_size=2000)
fit(data, Path({str(tmp_path)!r}), Break("truncate", {str(path)!r}, batch=2))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True, timeout=120, check=False,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/helpers'}"},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr  # not -SIGBUS
    assert f"rows.{kind}: was truncated while it was being read" in done.stderr


def test_nan_that_appears_in_the_second_pass_unnoticed_is_named(tmp_path: Path, npy: Path) -> None:
    data = ActivationDataModule(str(npy), val_fraction=0, batch_size=100)
    broken = Break("write_unnoticed", str(npy), epoch=1, batch=0)
    with pytest.raises(ValueError, match=r"rows\.npy, row 7: feature 3 is nan.*data\.on_bad_rows=skip"):
        fit(data, tmp_path, broken, l1_penalty=0.05, tol=0)
