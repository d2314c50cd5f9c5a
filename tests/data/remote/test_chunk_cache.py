"""A damaged chunk is fetched again; the folder stays below its bound."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

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


def test_the_chunks_not_used_for_longest_are_removed_and_stay_readable(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_bytes(bytes(500))
    cache, other = ChunkCache(tmp_path, 3 * 104), ChunkCache(tmp_path, 3 * 104)  # with their checksums
    fetched: list[str] = []

    def get(cache: ChunkCache, name: str) -> Any:
        time.sleep(0.01)

        def fetch() -> bytearray:
            fetched.append(name)
            return bytearray(name.encode() * 100)

        return cache.get(name, 100, fetch)

    def names() -> list[str]:
        return sorted(path.name for path in tmp_path.glob("*.chunk*"))

    chunks = {name: get(cache, name) for name in "abc"}
    get(other, "a")
    chunks["d"] = get(other, "d")
    assert names() == ["a.chunk", "c.chunk", "d.chunk"]
    (tmp_path / "left.chunk.partial").touch()
    chunks["b"] = get(cache, "b")
    assert names() == ["a.chunk", "b.chunk", "d.chunk"]
    assert all(bytes(content) == name.encode() * 100 for name, content in chunks.items())
    assert fetched == ["a", "b", "c", "d", "b"]
    assert (tmp_path / "mine.txt").exists()


def test_a_chunk_above_the_limit_stays_in_memory(tmp_path: Path) -> None:
    cache = ChunkCache(tmp_path, 50)
    assert bytes(cache.get("a", 100, lambda: bytearray(b"a" * 100))) == b"a" * 100
    assert not list(tmp_path.glob("*.chunk*"))
