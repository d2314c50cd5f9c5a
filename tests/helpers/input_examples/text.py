"""Random texts, one per line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_networks as tiny


def overrides(folder: Path) -> list[str]:
    pytest.importorskip("transformers")
    (folder / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in tiny.texts(5)))
    return [f"inputs.path={folder}/t.jsonl", "model=transformers", f"model.path={tiny.bert(folder / 'bert')}",
            "layers=[encoder.layer.0]"]  # fmt: skip


def edit(folder: Path) -> None:
    text = (folder / "t.jsonl").read_text()
    (folder / "t.jsonl").write_text(text.replace("quick", "under"))
