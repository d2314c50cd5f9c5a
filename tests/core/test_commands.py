"""Hints name the command that the user ran."""

from __future__ import annotations

import pytest

from seminmf_lightning.core.commands import command


@pytest.mark.parametrize(
    ("started", "name", "typed"),
    [
        ("scripts/train.py", "encode", "python scripts/encode.py"),
        ("../clone/scripts/train.py", "show-rows", "python ../clone/scripts/show_rows.py"),
        ("/usr/bin/seminmf", "show-rows", "seminmf show-rows"),
        ("-c", "train", "seminmf train"),
        ("mine/train.py", "train", "seminmf train"),
    ],
)
def test_a_command_is_named_as_the_user_types_it(
    monkeypatch: pytest.MonkeyPatch, started: str, name: str, typed: str
) -> None:
    monkeypatch.setattr("sys.argv", [started])
    assert command(name) == typed
