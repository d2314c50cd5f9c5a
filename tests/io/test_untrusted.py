"""Rows, pictures and runs from elsewhere are checked against what they say of themselves."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from seminmf_lightning.data import NpyRows, SafetensorsRows
from seminmf_lightning.explain.runs import read_run
from seminmf_lightning.harvest.inputs.images import ImageFiles


def test_a_header_that_says_less_or_more_than_there_is(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.ones((8, 4), dtype=np.float32))
    whole = path.read_bytes()
    for old, new in (
        (b"(8, 4)", b"(7, 4)"),
        (b"(8, 4)", b"(9, 4)"),
        (b"<f4", b"<f8"),
        (b"(8, 4), }          ", b"(9999999999, 4), } "),
    ):
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(ValueError, match=r"a\.npy: .*bytes, but its header says"):
            NpyRows(str(path)).open()
    np.save(path, np.array([[object()]]), allow_pickle=True)
    with pytest.raises(ValueError, match="dtype object"):
        NpyRows(str(path)).open()


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    for name in ("a.npy", "a.safetensors"):
        os.mkfifo(tmp_path / name)  # which would wait for a writer for ever
    for source in (NpyRows(str(tmp_path / "a.npy")), SafetensorsRows(str(tmp_path / "a.safetensors"))):
        with pytest.raises(ValueError, match="not a regular file"):
            source.open()


def test_groups_are_checked_and_kept_apart(tmp_path: Path) -> None:
    rows = torch.ones(3, 2)
    for name, group in (("a", [2**62, 5, 5]), ("b", [5, 7, 5])):
        save_file({"activations": rows, "group": torch.tensor(group)}, tmp_path / f"{name}.safetensors")
    groups = SafetensorsRows(str(tmp_path)).open_groups()
    assert groups is not None and len(np.unique(groups)) == 4 and not set(groups[:3]) & set(groups[3:])
    save_file({"activations": rows, "group": torch.ones(2, dtype=torch.int32)}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"b\.safetensors: 'group' has shape \(2,\), but there are 3 rows"):
        SafetensorsRows(str(tmp_path)).open_groups()
    save_file({"activations": rows, "group": torch.ones(3)}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"b\.safetensors: tensor 'group' has type F32"):
        SafetensorsRows(str(tmp_path)).open_groups()
    save_file({"activations": rows}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"b\.safetensors: no tensor 'group', but other shards have one"):
        SafetensorsRows(str(tmp_path)).open_groups()


def test_a_picture_is_what_its_formats_are(tmp_path: Path) -> None:
    from PIL import Image

    # Pillow would start Ghostscript.
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    Image.new("1", (9000, 9000)).save(tmp_path / "b.png")
    inputs = ImageFiles(str(tmp_path))
    with pytest.raises(ValueError, match=r"a\.png: not a complete image"):
        inputs.read(0)
    with pytest.raises(ValueError, match=r"b\.png: 9000 x 9000; at most"):
        inputs.read(1)


def test_runs_cannot_stop_the_comparison(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("[]")
    (tmp_path / "error.txt").write_bytes(b"\xff\xfe broken")
    assert read_run(tmp_path).status == "failed"
    for content in (
        "1" * 4000,
        '{"r2": ' + "9" * 400 + "}",
        "[" * 100_000,
        "\xff",
        '{"r2": true, "l0": 1, "reconstruction_loss": 1}',
    ):
        (tmp_path / "metrics.json").write_bytes(content.encode("latin-1"))
        assert read_run(tmp_path).status == "failed"
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    for content in ("\n".join(lines), "!!python/object/apply:os.system ['false']", "[" * 20_000, "- 3"):
        (tmp_path / ".hydra" / "overrides.yaml").write_text(content)
        found = read_run(tmp_path)
        assert found.status == "failed" and ".hydra" in found.reason
