"""Texts in files and in lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_networks as tiny

from seminmf_lightning.core.discovery import build
from seminmf_lightning.harvest.inputs import Inputs, text


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
    with pytest.raises(ValueError, match=r"no text under 'text' \(found body: \w+\)"):
        build(Inputs, {"name": "text", "path": str(tmp_path)}).read(1)
    lines = build(Inputs, {"name": "text", "path": str(tmp_path / "a.txt"), "per": "line"})
    assert [lines.read(0), lines.read(1)] == ["one", "two"]
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match=r"c\.txt: not text in utf-8"):
        build(Inputs, {"name": "text", "path": str(tmp_path / "c.txt")}).read(0)
    with pytest.raises(FileNotFoundError, match="matches no text"):
        len(build(Inputs, {"name": "text", "path": str(tmp_path / "none")}))


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
def test_a_long_file_is_read_in_parts_that_are_the_whole(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "PART", 1000)
    monkeypatch.setattr(text, "BORDER", 100)
    content = " ".join(tiny.texts(20, seed=3)) + "\n" + "äö" * 900 + " end" + "x" * 3000
    (tmp_path / "a.txt").write_text("short")
    (tmp_path / "b.txt").write_bytes(content.encode(encoding))
    inputs = build(Inputs, {"name": "text", "path": str(tmp_path), "encoding": encoding})
    parts = [inputs.read(number) for number in range(len(inputs))][1:] if encoding != "utf-16" else []
    if encoding == "utf-16":  # cannot be cut at a byte
        assert len(inputs) == 2
        return
    assert "".join(parts) == content
    assert len(parts) == -(-len(content.encode(encoding)) // 1000) > 5
    assert inputs.identify(0).endswith("a.txt") and inputs.identify(2).endswith(
        f"b.txt, part 2 of {len(parts)}"
    )
    assert all(part.startswith(" ") for part in parts[1:4])  # cut between words


def test_a_file_of_lines_that_cannot_be_opened_is_one_unreadable_example(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n{"text": "too"}\n')
    (tmp_path / "b.jsonl").symlink_to("nowhere")
    (tmp_path / "c.txt").symlink_to("nowhere")
    inputs = build(Inputs, {"name": "text", "path": str(tmp_path)})
    assert len(inputs) == 4 and inputs.digest() and inputs.read(1) == "too"
    for number in (2, 3):
        with pytest.raises(ValueError, match=r"[bc]\.(jsonl|txt)"):
            inputs.read(number)
