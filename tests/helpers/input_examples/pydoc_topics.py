"""Python's help through a tiny BERT."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_networks as tiny


def overrides(folder: Path) -> list[str]:
    pytest.importorskip("transformers")
    return ["model=transformers", f"model.path={tiny.bert(folder / 'bert')}", "layers=[encoder.layer.0]"]
