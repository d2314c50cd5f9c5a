"""Texts in files and in lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seminmf_lightning.core.discovery import build
from seminmf_lightning.harvest.inputs import Inputs


def test_texts_in_files_and_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.jsonl").write_text(
        "".join(json.dumps({"body": str(number)}) + "\n" for number in range(600)) + "{\n"
    )
    inputs = build(Inputs, {"name": "text", "path": str(tmp_path), "field": "body"})
    assert len(inputs) == 602
    assert inputs.read(0) == "one\ntwo\n"
    assert [inputs.read(number) for number in (1, 300, 600)] == ["0", "299", "599"]
    assert inputs.identify(300).endswith("b.jsonl, line 300")
    with pytest.raises(ValueError, match=r"b\.jsonl, line 601: not JSON"):
        inputs.read(601)
    with pytest.raises(ValueError, match=r"no text under 'text' \(found body\)"):
        build(Inputs, {"name": "text", "path": str(tmp_path)}).read(1)
    lines = build(Inputs, {"name": "text", "path": str(tmp_path / "a.txt"), "per": "line"})
    assert [lines.read(0), lines.read(1)] == ["one", "two"]
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match=r"c\.txt: not text in utf-8"):
        build(Inputs, {"name": "text", "path": str(tmp_path / "c.txt")}).read(0)
    with pytest.raises(FileNotFoundError, match="matches no text"):
        len(build(Inputs, {"name": "text", "path": str(tmp_path / "none")}))
