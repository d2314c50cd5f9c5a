"""Malformed files: each is loaded right or refused clearly."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import malformed_files as fuzzing
import pytest
from bounded import bounded
from malformed_files import Kind, fuzz, table
from safetensors import SafetensorError


def test_malformed_files_are_loaded_right_or_refused_clearly(tmp_path: Path) -> None:
    counts, failures = fuzz(3_000, seed=1, keep=tmp_path)
    assert not failures, f"{table(counts)}\n" + "\n".join(failures[:20])
    assert sum(counts.values()) == 3_000
    for name in fuzzing.EDITS:  # neither all nor nothing: the changes reach what the readers look at
        assert counts[name, "refused clearly"] > 0
    assert sum(count for (_, found), count in counts.items() if found == "loaded right") > 100


@pytest.mark.slow
def test_many_malformed_files(tmp_path: Path) -> None:
    counts, failures = fuzz(bounded(100_000, 20_000), seed=2, processes=os.cpu_count() or 1, keep=tmp_path)
    print(table(counts))
    assert not failures, "\n".join(failures[:20])


def crash(path: Path, content: bytes) -> bool:
    os.kill(os.getpid(), signal.SIGSEGV)
    return True


def hang(path: Path, content: bytes) -> bool:
    try:
        time.sleep(60)
    except Exception as error:
        raise ValueError(f"{path}: as if it were refused") from error
    return True


def fail(path: Path, content: bytes) -> bool:
    raise SafetensorError(f"{path}: an error of a library")


def unnamed(path: Path, content: bytes) -> bool:
    raise ValueError("something is wrong somewhere, but who knows in which file")


def greedy(path: Path, content: bytes) -> bool:
    return len(bytes(b"x" * (700 * 2**20))) > 0


def wrong(path: Path, content: bytes) -> bool:
    raise AssertionError("fewer rows than there are")


@pytest.mark.parametrize(
    ("reader", "words"),
    [
        (crash, "ended the process"),
        (hang, "more than"),
        (fail, "SafetensorError"),
        (unnamed, "somewhere"),
        (greedy, "MB"),
        (wrong, "fewer rows"),
    ],
)
def test_the_search_sees_what_it_looks_for(
    reader: Any, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def one(folder: Path) -> dict[str, Kind]:
        for name in ("store", "run"):
            (folder / name).mkdir()
        return {"texts": Kind(1, "a.jsonl", [b'{"text": "x"}\n'], reader)}

    monkeypatch.setattr(fuzzing, "kinds", one)
    monkeypatch.setattr(fuzzing, "SECONDS", 1.0 if reader is hang else 20.0)
    counts, failures = fuzz(2, keep=tmp_path)
    assert counts["texts", "FAILED"] == 2 and all(words in failure for failure in failures)
    assert len(list(tmp_path.iterdir())) == 2  # to look at
