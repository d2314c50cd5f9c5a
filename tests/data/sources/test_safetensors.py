"""bfloat16 is read; bad files are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from seminmf_lightning.data import SafetensorsRows


def test_bfloat16(tmp_path: Path) -> None:
    save_file({"x": torch.arange(8).reshape(4, 2).bfloat16()}, tmp_path / "a.safetensors")
    assert SafetensorsRows(str(tmp_path / "a.safetensors")).read(np.array([3])).tolist() == [[6.0, 7.0]]


def test_bad_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"\x00" * 5)
    with pytest.raises(ValueError, match=r"cut\.safetensors"):
        len(SafetensorsRows(str(tmp_path / "cut.safetensors")))
