"""A damaged chunk is fetched again; the folder stays below its bound."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seminmf_lightning.data.remote.chunk_cache import ChunkCache


def test_a_damaged_chunk_is_fetched_again(tmp_path: Path) -> None:
    cache, content, fetched = ChunkCache(tmp_path, 1000), np.arange(100, dtype=np.uint8), []

    def fetch() -> bytearray:
        fetched.append(1)
        return bytearray(content)

    path = tmp_path / "a.chunk"
    for damage in (
        None,
        lambda: os.truncate(path, 50),
        lambda: path.write_bytes(bytes(104)),
        lambda: flip(path, 7),
    ):
        if damage:
            damage()
        for _ in range(2):
            assert np.array_equal(cache.get("a", 100, fetch), content)
    assert len(fetched) == 4  # at first, and after each damage


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def test_the_cache_removes_what_was_not_used_for_longest_and_nothing_in_use(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_bytes(bytes(500))
    cache, other = ChunkCache(tmp_path, 3 * 104), ChunkCache(tmp_path, 3 * 104)  # with their checksums
    fetched: list[str] = []

    def get(cache: ChunkCache, name: str) -> Any:
        def fetch() -> bytearray:
            fetched.append(name)
            return bytearray(name.encode() * 100)

        return cache.get(name, 100, fetch)

    a = get(cache, "a")
    for name in "bc":
        get(cache, name)
        time.sleep(0.01)
    get(other, "b")
    get(other, "d")
    assert sorted(path.name for path in tmp_path.glob("*.chunk")) == ["a.chunk", "b.chunk", "d.chunk"]
    b, d = get(cache, "b"), get(cache, "d")
    with pytest.warns(UserWarning, match="data.cache_gb"):
        e = get(cache, "e")
    assert bytes(e) == b"e" * 100
    view = d[:1]
    del d
    with pytest.warns(UserWarning, match="data.cache_gb"):
        get(other, "f")  # a view of d is in use
    del view
    (tmp_path / "left.chunk.partial").touch()
    get(other, "f")
    assert sorted(path.name for path in tmp_path.glob("*.chunk*")) == ["a.chunk", "b.chunk", "f.chunk"]
    assert bytes(a[:1]) + bytes(b[:1]) == b"ab"
    assert fetched == ["a", "b", "c", "d", "e", "f", "f"]
    assert (tmp_path / "mine.txt").exists()
