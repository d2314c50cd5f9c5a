"""Files of an input: links, hidden files, pipes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from seminmf_lightning.harvest.inputs import Unreadable
from seminmf_lightning.harvest.inputs.text import TextFiles


def test_each_file_counts_once_whatever_the_links(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for file in (folder / "sub" / "a.txt", folder / "b.txt", elsewhere / "c.txt"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(file.name)
    (folder / "sub" / "circle").symlink_to(folder)
    (folder / "link").symlink_to(elsewhere)
    files = TextFiles(str(folder)).files
    assert files == [str(folder / name) for name in ("b.txt", "link/c.txt", "sub/a.txt")]
    assert len(TextFiles(f"{folder}/**/*.txt").files) == 3
    first = str(folder / "sub" / "a.txt")
    assert TextFiles([first, str(folder / "*.txt"), str(folder), first]).files == [first, *files[:2]]


def test_hidden_files_are_left_out_unless_named(tmp_path: Path) -> None:
    (tmp_path / ".ipynb_checkpoints").mkdir()
    for name in ("a.txt", "._a.txt", ".ipynb_checkpoints/a.txt"):
        (tmp_path / name).write_text("the cat")
    assert TextFiles(str(tmp_path)).files == [str(tmp_path / "a.txt")]
    named = str(tmp_path / "._a.txt")
    assert TextFiles(named).files == [named]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_a_pipe_is_unreadable_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    inputs = TextFiles(str(tmp_path))
    assert len(inputs) == 1 and inputs.digest()
    with pytest.raises(Unreadable, match="not a regular file"):
        inputs.read(0)
