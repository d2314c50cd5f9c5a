"""A corpus of texts and a small BERT."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_networks as tiny


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in tiny.texts(40)))
    return file


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    pytest.importorskip("transformers")
    return tiny.bert(tmp_path / "bert")
