"""A BERT of two layers over random texts."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_networks as tiny


def overrides(folder: Path) -> list[str]:
    pytest.importorskip("transformers")
    (folder / "a.txt").write_text("\n".join(tiny.texts(4)))
    return [f"model.path={tiny.bert(folder / 'bert')}", "layers=[encoder.layer.0]",
            "inputs=text", "inputs.per=line", f"inputs.path={folder}/a.txt"]  # fmt: skip
