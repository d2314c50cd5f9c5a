"""Files are whole or absent, get the mode of the umask, and may leave the old one beside them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from seminmf_lightning.core.normalize import Normalizer
from seminmf_lightning.dictionary_file import save_dictionary
from seminmf_lightning.io.atomic import DiskFullError, keep_previous, whole_file, whole_folder


@pytest.fixture
def umask(request: pytest.FixtureRequest):
    previous = os.umask(request.param)
    yield request.param
    os.umask(previous)


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077, 0o027], indirect=True)
def test_files_get_the_mode_of_the_umask_whoever_writes_them(umask: int, tmp_path: Path) -> None:
    def by_safetensors(path: Path) -> None:
        save_file({"x": torch.ones(2)}, path)

    def by_open(path: Path) -> None:
        path.write_text("x")

    def private(path: Path) -> None:
        path.unlink(missing_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))

    for number, write in enumerate((by_safetensors, by_open, private)):
        for _ in range(2):  # a new file, and one that is replaced
            with whole_file(tmp_path / str(number), "") as partial:
                write(partial)
            assert (tmp_path / str(number)).stat().st_mode & 0o777 == 0o666 & ~umask
    save_dictionary(tmp_path / "D.safetensors", torch.ones(2, 3), Normalizer(), {}, ())
    assert (tmp_path / "D.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_file_about_to_be_replaced_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, previous = tmp_path / "metrics.json", tmp_path / "metrics.json.previous"
    path.write_text("one")
    for text in ("two", "three"):
        keep_previous(path, previous)
        with whole_file(path, "") as partial:
            partial.write_text(text)
    assert (path.read_text(), previous.read_text()) == ("three", "two")

    def no_links(*args: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(OSError, match="no hard links"):
        keep_previous(path, previous, may_copy=False)
    assert previous.read_text() == "two"
    keep_previous(path, previous)
    assert (path.read_text(), previous.read_text()) == ("three", "three")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["metrics.json", "metrics.json.previous"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "a.json"
    with whole_file(path, "") as partial:
        partial.write_text("old")

    def fail() -> None:
        with whole_file(path, "") as partial:
            partial.write_text("half")
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_explained_with_the_remedy(tmp_path: Path) -> None:
    words = r"a\.json does not fit .* bytes are free in .*; make room"
    with pytest.raises(DiskFullError, match=words), whole_file(tmp_path / "a.json", "make room"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    for content in ("first", "second", "third"):
        with whole_folder(target, "make room") as partial:
            (partial / "inside").mkdir()
            (partial / "inside" / "file").write_text(content)
            (partial / "inside" / "file").chmod(0o600)
            assert not target.exists() or (target / "inside" / "file").read_text() != content
    assert (target / "inside" / "file").read_text() == "third"
    assert (tmp_path / "out.previous" / "inside" / "file").read_text() == "second"
    (plain := tmp_path / "plain").touch()
    assert (target / "inside" / "file").stat().st_mode == plain.stat().st_mode

    def failing(error: Exception) -> None:
        with whole_folder(target, "make room") as partial:
            (partial / "half").write_text("half")
            raise error

    with pytest.raises(KeyError):
        failing(KeyError())
    with pytest.raises(DiskFullError, match=r"the disk is full: .*out does not fit .*; make room"):
        failing(OSError(errno.ENOSPC, "no space"))
    assert (target / "inside" / "file").read_text() == "third" and not (target / "half").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.previous", "plain"]
